"""The share of a step that a device waits for data, by how long its steps are beside what a batch costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmark.loader.options import LoaderOptions
from benchmark.loader.reading import open_data
from benchmark.record import Record
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.stream.loader import PREFETCHED

LENGTHS = (0.5, 1.0, 1.5, 2.0)
"""Lengths of a step, as multiples of the time in which one reader makes a batch."""
TURNS = 3
"""Times that each length is measured."""


def measure_waiting(source: SourceConfig, options: LoaderOptions) -> list[Record]:
    """Read with one reader while the training process does nothing for the length of a step, as if a device worked.

    Before each measurement the reader's own pace is taken anew, with steps of no length, because it changes when
    others use the machine.

    Returns:
        For each length of a step: the share of time spent waiting, and what it would be with a reader that never pauses
        and keeps its pace.
    """
    phases = 2 * TURNS * len(LENGTHS) + 1
    data = open_data(source, options, phases * (PREFETCHED + options.steps), num_workers=1)
    batches = iter(data.train_dataloader())
    _waited(batches, 0.0, options.steps)  # the reader starts
    shares: dict[float, list[float]] = {length: [] for length in LENGTHS}
    steps: dict[float, list[float]] = {length: [] for length in LENGTHS}
    for turn in range(TURNS):
        for length in LENGTHS if turn % 2 else reversed(LENGTHS):
            step = length * _waited(batches, 0.0, options.steps) / options.steps
            waited = _waited(batches, step, options.steps)
            shares[length].append(waited / (waited + step * options.steps))
            steps[length].append(step)
    return [
        {
            "step_seconds": statistics.median(steps[length]),
            "step_per_batch": length,
            "share_waiting": statistics.median(shares[length]),
            "least_share": max(0.0, 1 - length),
        }
        for length in LENGTHS
    ]


def _waited(batches: Iterator[Any], step: float, count: int) -> float:
    """Seconds waited in `count` steps, after as many as could have been prepared before."""
    waits = []
    for _ in range(PREFETCHED + count):
        began = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - began)
        time.sleep(step)
    return sum(waits[PREFETCHED:])
