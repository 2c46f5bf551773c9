"""Tokens that stage 2 computes beside those of its texts, with batches of like length."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from benchmark.comparisons.comparison import Comparison
from benchmark.comparisons.stage1 import coco_lengths, web_lengths
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler
from blip2_train.data.stream.like_lengths import LikeLengthSampler

_SHAPE = BatchShape(global_batch_size=1920, world_size=16)
"""The paper's global batch of stage 2 with OPT, on its 16 GPUs."""
_WINDOW = 8
_STEPS = 40


def compare() -> list[Comparison]:
    """The worse of the lengths of the web's captions and of COCO's."""
    count = _STEPS * _SHAPE.global_batch_size
    drawn = {}
    for name, draw in (("web", web_lengths), ("COCO", coco_lengths)):
        lengths = draw(count, torch.Generator().manual_seed(0)).tolist()
        drawn[name] = [padded_ratio(lengths, window) for window in (_WINDOW, None)]
    ours, other = ([f"{name} {ratios[way]:.3f}" for name, ratios in drawn.items()] for way in (0, 1))
    return [
        Comparison(
            name="padding_stage2",
            what=f"stage 2, padded tokens for each real one, {_SHAPE.global_batch_size} samples, windows of {_WINDOW}",
            ours=", ".join(ours),
            other=", ".join(other) + ", batches as they come",
            ratio=max(ratios[0] for ratios in drawn.values()),
            target=1.05,
        )
    ]


def padded_ratio(lengths: Sequence[int], window: int | None) -> float:
    """Tokens of all micro-batches, each padded to its longest text, for each token of the texts; mean of processes."""
    ratios = []
    for rank in range(_SHAPE.world_size):
        sampler = GlobalBatchSampler(_SHAPE, rank, _STEPS)
        if window is not None:
            sampler = LikeLengthSampler(
                _SHAPE, rank, _STEPS, 0, window=window, seed=0, lengths=lambda some: [lengths[at] for at in some]
            )
        batches = [[lengths[position] for position in batch] for batch in sampler]
        ratios.append(sum(max(batch) * len(batch) for batch in batches) / sum(map(sum, batches)))
    return statistics.mean(ratios)
