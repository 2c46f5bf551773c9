"""Runs the work of a preparation in workers of Ray: on this machine, or on all machines of a cluster.

The workers are Ray's actors. Ray Data, which uses actors too, does not fit the protocol of `Engine`: it needs all tasks
before it starts, as rows in its object store (those of 129M samples hold gigabytes of verdicts), works ahead as far as
that store reaches, and returns results in order only by holding blocks back. Here tasks are taken one by one, a few in
advance, results are returned in order, and the journal has the state after a kill.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from os.path import exists
from typing import Any, TypeVar

import PIL

from blip2_train.data.prepare.ray_connection import connected
from blip2_train.errors import Blip2TrainError, ConfigError, ShardError

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 3
"""Tasks per worker that are submitted before the first result is taken."""
_TASKS_PER_WORKER = 2
"""Tasks of one worker at a time, so that it need not wait for the next one."""
_WARNING_AFTER = 60.0
"""Seconds without any worker after which a warning is logged."""


class RayEngine:
    """Workers of Ray, as a context that ends them, and ends a Ray that was started for it.

    Ray is connected at the first call. Each worker receives the function once: what it sets up at its first task (a
    model) stays for the others. A lost worker is replaced, and its tasks are submitted once more, so tasks must be
    repeatable.

    Args:
        workers: number of workers; None = as many as fit on the cluster. Workers that do not fit yet join later.
        address: address of a cluster: `auto`, `<host>:<port>` or `ray://<host>:<port>`; None = a new private Ray.
        cpus_per_worker: cores reserved for each worker.
        gpus_per_worker: GPUs reserved for each worker, which has access to these only; may be a fraction.
        shared: files and folders that every machine must have access to, once they exist; relative paths start from
            this process's folder.

    Example:
        with RayEngine(workers=2) as engine:
            print(list(engine(abs, [-1, 2])))
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        shared: Sequence[str] = (),
    ) -> None:
        if address is None and workers is None:
            raise ConfigError("a private Ray needs the number of workers")
        self._count, self._address = workers, address
        self._needs = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
        self._environment, self._shared = (os.getcwd(), PIL.__version__), tuple(shared)
        self._open = ExitStack()
        self._ray: Any = None
        self._workers: list[Any] = []

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()  # which ends the workers, unless the connection is older
        if self._ray is not None and self._ray.is_initialized():
            for worker in self._workers:
                self._ray.kill(worker)
        self._ray, self._workers = None, []

    def __call__(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results in the order of the tasks.

        Raises:
            ConfigError: while results are taken, if Ray is not installed or cannot be reached, or a machine of the
                cluster does not see the files or has another Pillow.
            ShardError: if a task was lost twice with its worker.
        """
        self._connect()
        ray, left = self._ray, iter(tasks)
        stored, name = ray.put(work), uuid.uuid4().hex
        seen_here = tuple(path for path in self._shared if exists(path))
        running = {worker.ready.remote(): worker_index for worker_index, worker in enumerate(self._workers)}
        load: dict[int, int] = {}
        waiting: deque[Any] = deque()
        none_left = object()
        while True:
            while load and min(load.values()) < _TASKS_PER_WORKER and len(waiting) < _AHEAD * len(self._workers):
                if (task := next(left, none_left)) is none_left:
                    break
                worker_index = min(load, key=load.__getitem__)
                waiting.append(self._workers[worker_index].do.remote(name, [stored], seen_here, task))
                running[waiting[-1]] = worker_index
                load[worker_index] += 1
            if waiting and waiting[0] not in running:
                yield self._result(waiting.popleft())
            elif load and not waiting:
                return
            else:
                self._wait(running, load)

    def _wait(self, running: dict[Any, int], load: dict[int, int]) -> None:
        """Wait until a worker has finished a task, or has started."""
        done, _ = self._ray.wait(list(running), timeout=_WARNING_AFTER)
        for reference in done:
            worker_index = running.pop(reference)
            if worker_index in load:
                load[worker_index] -= 1
            else:
                self._check_started(reference)
                load[worker_index] = 0
        if not load:
            logger.warning("Ray has no room for a worker yet; `ray status` on the cluster shows its resources")

    def _check_started(self, reference: Any) -> None:
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[-300:]  # the cause comes last
            raise ConfigError(f"no worker can start on this Ray: {reason}") from None

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, Blip2TrainError) else error)
        except self._ray.exceptions.RayError:
            raise ShardError(
                "a worker of Ray was lost twice at the same task, perhaps for want of memory; repeat the command with "
                "fewer workers, it resumes where it stopped"
            ) from None

    def _connect(self) -> None:
        """Connect to Ray and start the workers, at the first call."""
        if self._ray is not None:
            return
        cpus = None if self._count is None else self._count * self._needs["CPU"]
        ray = self._open.enter_context(connected(self._address, cpus, gpus=self._needs["GPU"] > 0))
        capacity = _capacity(ray.cluster_resources(), self._needs)
        if capacity < 1 and (self._count is None or self._address is None):
            needs = " and ".join(f"{count:g} {name}" for name, count in self._needs.items() if count)
            raise ConfigError(
                f"this Ray does not have what one worker needs ({needs}); ask for less, or for another Ray"
            )
        options = {"num_cpus": self._needs["CPU"], "num_gpus": self._needs["GPU"]}
        kind = ray.remote(max_restarts=-1, max_task_retries=1, **options)(_Worker)
        for _ in range(self._count or capacity):
            self._workers.append(kind.remote(*self._environment))
        self._ray = ray


def _capacity(resources: dict[str, float], needs: dict[str, float]) -> int:
    """Workers that would fit on an idle cluster."""
    return min(int(resources.get(name, 0) / count + 1e-9) for name, count in needs.items() if count)


class _Worker:
    """The actor in a process of Ray: keeps the last function it received, and applies it to tasks."""

    def __init__(self, folder: str, pillow: str) -> None:
        self._folder, self._pillow = folder, pillow
        self._name = ""
        self._work: Callable[[Any], Any]

    def ready(self) -> None:
        """Do nothing; the call returns once the worker has started."""

    def do(self, name: str, work: list[Any], shared: Sequence[str], task: Any) -> Any:
        """The result of a task; `work` holds a reference to the function, which is fetched only if its name is new."""
        if name != self._name:
            import ray

            self._check_machine(shared)
            self._work, self._name = ray.get(work[0]), name
        return self._work(task)

    def _check_machine(self, shared: Sequence[str]) -> None:
        """Change to the command's folder, and refuse a machine that would give other results."""
        here = f"machine {socket.gethostname()} of the Ray cluster"
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        if missing := [path for path in shared if not exists(path)]:
            raise ConfigError(
                f"{here} has no {missing[0]}; inputs and outputs must be in folders that every machine can access "
                "(unfinished files of remote destinations are below XDG_CACHE_HOME)"
            )
        if PIL.__version__ != self._pillow:
            raise ConfigError(
                f"{here} has Pillow {PIL.__version__}, the machine of the command {self._pillow}; install the same"
            )
