"""Runs a function in several gloo processes on this machine, for tests."""

from __future__ import annotations

import multiprocessing
import sys
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
    one worker. It must be a function of a module outside the test files, and return tensors and plain values. The first
    process is a new interpreter, and the others are forked from one that has loaded everything: so that the order of a
    set, which follows the interpreter's hash seed, differs among them as it does in real runs.
    """
    loaded = [name for name in sys.modules if name.partition(".")[0] in ("blip2_train", "lightning", "transformers")]
    multiprocessing.get_context("forkserver").set_forkserver_preload(loaded)
    shared = (worlds, worker, folder, arguments)
    first = mp.start_processes(_enter, (0, *shared), join=False)
    others = mp.start_processes(_enter, (1, *shared), max(worlds) - 1, join=False, start_method="forkserver")
    together = mp.ProcessContext([*first.processes, *others.processes], [*first.error_files, *others.error_files])
    while not together.join():
        pass
    return {
        world: [torch.load(folder / f"{world}_{rank}.pt", weights_only=True) for rank in range(world)]
        for world in worlds
    }


def _enter(
    number: int,
    first: int,
    worlds: tuple[int, ...],
    worker: Callable[..., Any],
    folder: Path,
    arguments: tuple[Any, ...],
) -> None:
    rank = first + number
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet_{world}", rank=rank, world_size=world)
            torch.save(worker(*arguments), folder / f"{world}_{rank}.pt")
            dist.barrier()
            dist.destroy_process_group()
