"""Runs a function in several gloo processes on this machine, for tests."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from warm_process import WarmProcess

_SECONDS = 240
"""That the processes have altogether."""


def run_processes(
    worlds: tuple[int, ...], worker: Callable[..., Any], folder: Path, *arguments: Any
) -> dict[int, list[Any]]:
    """What `worker(*arguments)` returns in each process, in rank order, for each size of the group.

    The processes are started once, and form one group after the other. `worker` must be a function of a module outside
    the test files, and return tensors and plain values. The first process is forked from another one than the rest, see
    `warm_process`: so that the order of a set, which follows the interpreter's hash seed, differs among them as it does
    in real runs.
    """
    (folder / "work.pickle").write_bytes(pickle.dumps((worlds, worker, arguments)))
    ranks = range(max(worlds))
    processes = [WarmProcess([__file__, str(folder), str(rank)], other=rank > 0) for rank in ranks]
    with ThreadPoolExecutor(len(ranks)) as pool:
        running = [pool.submit(_finish, process) for process in processes]
        ended, waiting = wait(running, return_when=FIRST_EXCEPTION)
        for process in processes if waiting else ():  # one has failed, and the others would wait for it
            process.kill()
    for one in (*ended, *waiting):
        one.result()
    return {
        world: [torch.load(folder / f"{world}_{rank}.pt", weights_only=True) for rank in range(world)]
        for world in worlds
    }


def _finish(process: WarmProcess) -> None:
    output, errors = process.communicate(_SECONDS)
    assert process.returncode == 0, output[-3000:] + errors[-3000:]


def _enter(folder: Path, rank: int) -> None:
    worlds, worker, arguments = pickle.loads((folder / "work.pickle").read_bytes())
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet_{world}", rank=rank, world_size=world)
            torch.save(worker(*arguments), folder / f"{world}_{rank}.pt")
            dist.barrier()
            dist.destroy_process_group()


if __name__ == "__main__":
    _enter(Path(sys.argv[1]), int(sys.argv[2]))
