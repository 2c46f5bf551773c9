"""How many requests remote storage gets in the training order, and how many bytes they bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np

from benchmark.record import Record
from blip2_train.data.order import SampleOrder
from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.storage.prefetch import Span, rounds
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler

SIZES, READERS = (20_000, 50_000, 100_000, 200_000), (1, 2, 4, 8)
"""Bytes of a sample; readers of a process."""
_PER_SHARD, _SAMPLES = 10_000, 1_000_000
_WINDOWS = 4
"""Windows of the order that are gone through."""


def measure_requests() -> list[Record]:
    """Plan the requests of each reader by the default order and the default memory, as the readers themselves do.

    Nothing is fetched: the requests follow from the positions of the samples. Sizes vary between half and one and a
    half times the mean.

    Returns:
        For each size of samples and number of readers: samples per request, and bytes fetched per byte needed.
    """
    return [_planned(size, readers) for size in SIZES for readers in READERS]


def _planned(size: int, readers: int) -> Record:
    memory = int(StorageOptions().memory_mb * 1e6 / readers)
    order = SampleOrder(size=_SAMPLES, seed=0, name="s")
    batch = 64
    steps = _WINDOWS * order.window // batch
    sampler = GlobalBatchSampler(BatchShape(global_batch_size=batch), 0, steps)
    requests = needed = fetched = 0
    for reader in range(readers):
        batches = sampler.following(reader * batch, readers)
        for one in rounds(_passages(batches, order, size), memory):
            requests += len(one)
            fetched += sum(request.span.size for request in one)
            needed += sum(sample.size for request in one for sample in request.samples)
    return {
        "sample_bytes": size,
        "readers": readers,
        "samples_per_request": steps * batch / requests,
        "bytes_fetched_per_byte": fetched / needed,
    }


def _passages(batches: Iterator[list[int]], order: SampleOrder, size: int) -> Iterator[Sequence[Span]]:
    positions = (position for batch in batches for position in batch)
    for _, window in groupby(positions, key=lambda position: position // order.window):
        yield [_span(order.sample_at(0, position), size) for position in window]


def _span(sample: int, size: int) -> Span:
    shard, inside = divmod(sample, _PER_SHARD)
    start, end = _starts(size)[inside : inside + 2]
    return Span(shard, start, end)


@lru_cache(maxsize=1)
def _starts(size: int) -> list[int]:
    """Where the samples of a shard begin, and where the last ends."""
    sizes = np.random.default_rng(0).integers(size // 2, size * 3 // 2, _PER_SHARD)
    offsets: list[int] = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    return offsets
