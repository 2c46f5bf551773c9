"""Reading leaves nothing behind: memory and open files after many samples are those after few."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shard_files import write_many_shards

from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, EvalTransform, TrainTransform
from blip2_train.data.shards.open_files import LIMIT
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.stream.stream import EvaluationItems, TrainingStream

MANY = 900


def training(folder: Path) -> Callable[[int], object]:
    source = ShardSource(str(write_many_shards(folder / "data", 100)), "s", folder / "index")
    part = TrainingSource(source=source, weight=1.0, held_out=np.array([3], dtype=np.int64))
    transform = TrainTransform(24, CLIP_MEAN, CLIP_STD, (0.5, 1.0), (0.75, 1.33), 0.5)
    return TrainingStream([part], transform, 5, shuffle_block=4, shuffle_window=64).__getitem__


def evaluation(folder: Path) -> Callable[[int], object]:
    source = ShardSource(str(write_many_shards(folder / "data", 100)), "s", folder / "index")
    items = EvaluationItems([(source, np.arange(len(source)))], EvalTransform(24, CLIP_MEAN, CLIP_STD))
    return lambda index: items[index % len(items)]


@pytest.mark.parametrize("reading", [training, evaluation])
@pytest.mark.slow
def test_memory_and_files_are_flat(reading: Callable[[Path], Callable[[int], object]], tmp_path: Path) -> None:
    item = reading(tmp_path)
    seen: list[tuple[int, int]] = []
    for index in range(MANY):
        item(index)
        if index == MANY // 2:
            tracemalloc.start()
        if index in (MANY // 2 + 100, MANY - 1):
            gc.collect()
            seen.append((tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))))
    tracemalloc.stop()
    (before, files_before), (after, files_after) = seen
    assert after - before < 150 * (MANY // 2 - 101), "150 bytes of each sample would be 129,000,000 x 150 = 19 GB"
    assert abs(files_after - files_before) <= 2 <= LIMIT
