"""Runs the work of a preparation: in this process, in several on this machine, or in workers of Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from glob import iglob
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

from blip2_train.data.prepare.ray_engine import RayEngine
from blip2_train.data.shards.paths import expanded_braces
from blip2_train.errors import ConfigError, ShardError

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 3
"""Tasks per process that are submitted before the first result is taken."""
_work: Callable[[Any], Any]
"""In a worker process: the function that is applied to each task."""


class Engine(Protocol):
    """Applies a function to tasks, in any process or on any machine."""

    def __call__(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results in the order of the tasks; few tasks are taken in advance. Both arguments are picklable."""
        ...


class LocalEngine:
    """Processes of this machine, each of which receives the function once.

    Args:
        workers: number of processes; 1 = this process does all work.
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
                "resumes where it stopped"
            ) from None
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    """Prepare a worker process: it ends with its parent, however the parent ends."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(task: Any) -> Any:
    return _work(task)


EngineName = Literal["local", "ray"]


@contextmanager
def open_engine(
    name: EngineName = "local",
    workers: int | None = None,
    *,
    ray_address: str | None = None,
    gpus_per_worker: float = 0,
    shared: Sequence[str] = (),
) -> Iterator[Engine]:
    """Processes of this machine, or workers of Ray, which end with the context.

    Args:
        name: `local` or `ray`.
        workers: number of workers; None = one per core that this process may use, or that the cluster has.
        ray_address: address of a cluster, see `RayEngine`; None = this machine.
        gpus_per_worker: GPUs per worker of Ray; processes of this machine share its GPUs.
        shared: files and folders that every machine of a cluster must have access to.

    Raises:
        ConfigError: if an address is given without Ray.
    """
    if name == "local":
        if ray_address is not None:
            raise ConfigError(f"ray_address={ray_address} is for engine=ray; add that, or leave it out")
        yield LocalEngine(workers or cores())
        return
    if ray_address is None:
        workers = workers or cores()
    with RayEngine(workers, address=ray_address, gpus_per_worker=gpus_per_worker, shared=shared) as engine:
        yield engine


def paths_here(source: str | Sequence[str], images: str | None = None) -> list[str]:
    """One local file or folder for each path or glob that is read."""
    paths = [one for item in ([source] if isinstance(source, str) else source) for one in expanded_braces(item)]
    named = [os.path.expanduser(path) for path in (*paths, images) if path and "://" not in path]
    return [next(iglob(path, recursive=True), path) for path in named]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
