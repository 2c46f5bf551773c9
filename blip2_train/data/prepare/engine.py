"""Where the work of a preparation is done: in this process, or in several on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Protocol, TypeVar

from blip2_train.errors import ShardError

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 3
"""Tasks per process that are given out before the results of the first are taken."""
_work: Callable[[Any], Any]
"""In a worker: what it does with each task."""


class Engine(Protocol):
    """Maps work over tasks, wherever that is done."""

    def __call__(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results in the order of the tasks; only a few tasks are taken ahead. Both are picklable."""
        ...


class LocalEngine:
    """Processes of this machine, each of which gets the work once.

    Args:
        workers: processes; 1 = this one does it all.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def __call__(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results in the order of the tasks.

        Raises:
            ShardError: while results are taken, if a process was killed.
        """
        return map(work, tasks) if self._workers == 1 else self._in_processes(work, iter(tasks))

    def _in_processes(self, work: Callable[[Task], Result], tasks: Iterator[Task]) -> Iterator[Result]:
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(self._workers, initializer=_begin, initargs=(work,))
        try:
            waiting: deque[Future[Result]] = deque()
            waiting.extend(pool.submit(_do, task) for task in islice(tasks, _AHEAD * self._workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(_do, task) for task in islice(tasks, 1))
        except BrokenProcessPool:
            raise ShardError(
                "a worker process was killed, perhaps for want of memory; repeat the command with fewer workers, it "
                "goes on where it stopped"
            ) from None
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    """Get a worker ready: it ends when the process that started it ends, however that happens."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's affair
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(task: Any) -> Any:
    return _work(task)
