"""Opens the engine that a command asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import iglob
from typing import Literal

from blip2_train.data.prepare.engine import Engine, LocalEngine
from blip2_train.data.prepare.ray_engine import RayEngine
from blip2_train.data.shards.braces import expanded_braces
from blip2_train.errors import ConfigError

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
        name: which of the two.
        workers: how many; None = one for each core that this process may use, or that the cluster has.
        ray_address: of a cluster, see `RayEngine`; None = this machine.
        gpus_per_worker: of workers of Ray; processes of this machine share what it has.
        shared: files and folders that every machine of a cluster must see.

    Raises:
        ConfigError: if there is an address without Ray.
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
    """One file or folder of this machine for each path or glob that is read."""
    paths = [one for item in ([source] if isinstance(source, str) else source) for one in expanded_braces(item)]
    named = [os.path.expanduser(path) for path in (*paths, images) if path and "://" not in path]
    return [next(iglob(path, recursive=True), path) for path in named]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
