"""What `test_flat_reading` measures, in a process in which nothing else allocates."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shard_files import write_many_shards

from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, EvalTransform, TrainTransform
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.stream.stream import EvaluationItems, TrainingStream

SAMPLES = 900
"""That are read; the first half of them, and 100 more, come before the first count."""
COUNTED = SAMPLES // 2 - 101
"""Between the two counts."""


def training(folder: Path) -> Callable[[int], object]:
    """The `index`-th item of endless training on 100 shards."""
    source = ShardSource(str(write_many_shards(folder / "data", 100)), "s", folder / "index")
    part = TrainingSource(source=source, weight=1.0, held_out=np.array([3], dtype=np.int64))
    transform = TrainTransform(24, CLIP_MEAN, CLIP_STD, (0.5, 1.0), (0.75, 1.33), 0.5)
    return TrainingStream([part], transform, 5, shuffle_block=4, shuffle_window=64).__getitem__


def evaluation(folder: Path) -> Callable[[int], object]:
    """The `index`-th item of evaluations that repeat, on 100 shards."""
    source = ShardSource(str(write_many_shards(folder / "data", 100)), "s", folder / "index")
    items = EvaluationItems([(source, np.arange(len(source)))], EvalTransform(24, CLIP_MEAN, CLIP_STD))
    return lambda index: items[index % len(items)]


def counts_while_reading(reading: Callable[[Path], Callable[[int], object]], folder: Path) -> list[tuple[int, int]]:
    """Bytes that Python holds and open files, after 551 and after 900 samples."""
    item = reading(folder)
    counts: list[tuple[int, int]] = []
    for index in range(SAMPLES):
        item(index)
        if index == SAMPLES // 2:
            tracemalloc.start()
        if index in (SAMPLES - 1 - COUNTED, SAMPLES - 1):
            gc.collect()
            counts.append((tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))))
    return counts
