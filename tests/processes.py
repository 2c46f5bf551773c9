"""Runs a function in several gloo processes on this machine, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_processes(
    worlds: tuple[int, ...], worker: Callable[..., Any], folder: Path, *arguments: Any
) -> dict[int, list[Any]]:
    """What `worker(*arguments)` returns in each process, in rank order, for each size of the group.

    Starting a process takes seconds, so they are started once, and form one group after the other; put many checks into
    one worker. It must be a function of a module outside the test files, and return tensors and plain values.
    """
    mp.spawn(_enter, (worlds, worker, folder, arguments), nprocs=max(worlds))
    return {
        world: [torch.load(folder / f"{world}_{rank}.pt", weights_only=True) for rank in range(world)]
        for world in worlds
    }


def _enter(
    rank: int, worlds: tuple[int, ...], worker: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet_{world}", rank=rank, world_size=world)
            torch.save(worker(*arguments), folder / f"{world}_{rank}.pt")
            dist.barrier()
            dist.destroy_process_group()
