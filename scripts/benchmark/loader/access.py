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

from benchmark.loader.options import LoaderOptions
from benchmark.loader.photographs import write_photographs
from benchmark.loader.reading import open_data
from benchmark.record import Record
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.storage import remote

SHARDS = 8
"""That the photographs are written to."""
_STREAMS = 4


def write_shards(folder: Path, options: LoaderOptions) -> SourceConfig:
    """Photographs of the first size, in several shards."""
    folder.mkdir(exist_ok=True)
    for number in range(SHARDS):
        write_photographs(folder / f"{number:05d}.tar", options.sizes[0], options.images // SHARDS, seed=number)
    return SourceConfig(path=str(folder), name="images")


def measure_access(source: SourceConfig, options: LoaderOptions, cache: Path) -> dict[str, Record]:
    """Read the images `turns` times by each way of access, in a process with nothing indexed and no readers beside.

    Args:
        source: the shards.
        options: of which `access`, `images`, `batch_size`, `image_size` and `turns` count.
        cache: an empty folder for indexes.

    Returns:
        By way of access: seconds and requests until the first batch, images per second of the processor, requests for
        an image, and bytes of memory that the process took beyond what it had before it opened the source.
    """
    results = {}
    for number, access in enumerate(options.access):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results[access] = pool.submit(_measure, access, source, options, str(cache / str(number))).result()
    return results


def _measure(access: str, source: SourceConfig, options: LoaderOptions, cache: str) -> Record:
    os.environ["XDG_CACHE_HOME"] = cache
    torch.set_num_threads(1)
    steps = options.images // options.batch_size
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
    images = steps * options.batch_size
    return {
        "first_batch": first,
        "images_per_second_and_core": images / statistics.median(busy),
        "images_per_second": images / statistics.median(clock),
        "requests_per_image": requests[0] / (images * options.turns),
        "memory_bytes": _peak() - before,
    }


def _peak() -> int:
    """Most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _counted_requests() -> Iterator[list[int]]:
    """The number of requests to remote storage, as the only entry of a list."""
    count, real = [0], remote.call

    def counted(*values: Any, **named: Any) -> Any:
        count[0] += 1
        return real(*values, **named)

    remote.call = counted
    try:
        yield count
    finally:
        remote.call = real
