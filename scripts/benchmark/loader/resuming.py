"""The time from opening the data to the first batch, at several positions of a large set."""

from __future__ import annotations

import statistics
import time
from typing import cast

from benchmark.loader.options import LoaderOptions
from benchmark.loader.reading import open_data
from benchmark.loader.repeated import RepeatedConfig, RepeatedSource
from benchmark.record import Record, ratios
from blip2_train.data.sources.config import SourceConfig

POSITIONS = (0.0, 0.001, 0.5, 0.999, 3.3)
"""Where to resume, in epochs; stage 1 of the paper ends at 3.3."""


def measure_resuming(source: SourceConfig, options: LoaderOptions) -> list[Record]:
    """Open, resume and read a batch, at each position in turn.

    Each time has its own seed, so that nothing the order keeps in memory serves twice, as in a new process.

    Returns:
        For each position: seconds, how many times longer it takes than at position 0, and samples read for the first
        batch.
    """
    repeated = RepeatedConfig(path=source.path, name=source.name, samples=options.samples)
    steps = [int(position * options.samples) // options.batch_size for position in POSITIONS]
    seconds: list[list[float]] = [[] for _ in steps]
    busy: list[list[float]] = [[] for _ in steps]
    readings = [0] * len(steps)
    for turn in range(options.turns + 1):  # the first warms up
        for index in range(len(steps)) if turn % 2 else reversed(range(len(steps))):
            began, worked = time.perf_counter(), time.process_time()
            data = open_data(repeated, options, steps[index] + 1, seed=1 + turn * len(steps) + index)
            data.resume(steps[index] * options.batch_size, data.fingerprint())
            next(iter(data.train_dataloader()))
            if turn:
                seconds[index].append(time.perf_counter() - began)
                busy[index].append(time.process_time() - worked)
            readings[index] = cast(RepeatedSource, data.sources[0].source).readings
    return [
        {
            "epochs": position,
            "samples_before": step * options.batch_size,
            "seconds": statistics.median(taken),
            "times_longer": ratios(taken, seconds[0]),
            "times_longer_by_processor_time": ratios(worked, busy[0]),
            "samples_read": read,
        }
        for position, step, taken, worked, read in zip(POSITIONS, steps, seconds, busy, readings, strict=True)
    ]
