"""Random and sequential access to the same shards: speed, requests and memory, each in a process of its own."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from blip2_train.cli.benchmark.loader.options import LoaderOptions
from blip2_train.cli.benchmark.loader.photographs import write_photographs
from blip2_train.cli.benchmark.loader.reading import open_data
from blip2_train.cli.benchmark.record import Record
from blip2_train.data import storage
from blip2_train.data.source_config import SourceConfig

SHARDS = 8
"""That the photographs are written to."""
_STREAMS = 4


def write_shards(folder: Path, options: LoaderOptions) -> SourceConfig:
    """Photographs of the first size, in several shards."""
    folder.mkdir(exist_ok=True)
    for number in range(SHARDS):
        write_photographs(folder / f"{number:05d}.tar", options.sizes[0], options.pictures // SHARDS, seed=number)
    return SourceConfig(path=str(folder), name="pictures")


def measure_access(source: SourceConfig, options: LoaderOptions, cache: Path) -> dict[str, Record]:
    """Read the pictures `turns` times by each way of access, in a process with nothing indexed and no readers beside.

    Args:
        source: the shards.
        options: of which `access`, `pictures`, `batch_size`, `image_size` and `turns` count.
        cache: an empty folder for indexes.

    Returns:
        By way of access: seconds and requests until the first batch, pictures per second of the processor, requests for
        a picture, and bytes of memory that the process took beyond what it had before it opened the source.
    """
    found = {}
    for number, access in enumerate(options.access):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[access] = pool.submit(_measure, access, source, options, str(cache / str(number))).result()
    return found


def _measure(access: str, source: SourceConfig, options: LoaderOptions, cache: str) -> Record:
    os.environ["XDG_CACHE_HOME"] = cache
    torch.set_num_threads(1)
    steps = options.pictures // options.batch_size
    streams: dict[str, Any] = {"access": access, "streams": _STREAMS} if access == "sequential" else {}
    with _counted_requests() as requests:
        before, began, worked = _peak(), time.perf_counter(), time.process_time()
        data = open_data(source, options, 1 + steps * options.turns, **streams)
        batches = iter(data.train_dataloader())
        next(batches)
        first = {
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - worked,
            "requests": requests[0],
        }
        requests[0] = 0
        busy, clock = [], []
        for _ in range(options.turns):
            began, worked = time.perf_counter(), time.process_time()
            for _ in range(steps):
                next(batches)
            clock.append(time.perf_counter() - began)
            busy.append(time.process_time() - worked)
    pictures = steps * options.batch_size
    return {
        "first_batch": first,
        "pictures_per_second_and_core": pictures / statistics.median(busy),
        "pictures_per_second": pictures / statistics.median(clock),
        "requests_per_picture": requests[0] / (pictures * options.turns),
        "memory_bytes": _peak() - before,
    }


def _peak() -> int:
    """Most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _counted_requests() -> Iterator[list[int]]:
    """The number of requests to remote storage, as the only entry of a list."""
    count, real = [0], storage.call

    def counted(*values: Any, **named: Any) -> Any:
        count[0] += 1
        return real(*values, **named)

    storage.call = counted
    try:
        yield count
    finally:
        storage.call = real
