"""Which pairs the stage-1 objective pushes apart, read from its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from fakes import SIZE, FakeEncoder
from torch import Tensor

from blip2_train.distributed import rank, world_size
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageKeyValues, ImageTextBatch

ROWS = 4
"""Samples of each process."""


class Pairs(NamedTuple):
    """How many pairs were taught to mismatch."""

    same_image: int
    other_image: int


class NamingEncoder(FakeEncoder):
    """Its images and texts carry the id of their image, and it keeps the pairs it was asked to match."""

    def match(self, image_kvs: Sequence[ImageKeyValues], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.images = torch.cat(
            [image_kv.keys[0][:, 0, 0, 0].repeat(image_kv.copies) for image_kv in image_kvs]
        ).round()
        self.texts = input_ids[:, 1]
        self.logits = torch.zeros(len(input_ids), 2, requires_grad=True)
        return self.logits


def negative_pairs(seed: int, negatives: str, mask: bool = True) -> Pairs:
    """Pairs of this process that one random batch teaches to mismatch: a step against the gradient raises that logit.

    The batch is spread over the processes there are; most of its images come more than once.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 5 + 2 + seed % 3, (ROWS * world_size(),), generator=generator)
    mine = ids[rank() * ROWS : (rank() + 1) * ROWS]
    encoder = NamingEncoder()
    encoder.pixels = torch.eye(3, SIZE)
    batch = ImageTextBatch(
        pixel_values=mine.float()[:, None, None, None].expand(-1, 3, 2, 2),
        input_ids=torch.stack([torch.full_like(mine, 2), mine, torch.full_like(mine, 3)], dim=1),
        attention_mask=torch.ones(ROWS, 3, dtype=torch.bool),
        image_ids=mine,
        longest_text=3,
        sample_ids=("",) * ROWS,
        rejected=(),
    )
    objective = RepresentationObjective(negatives=negatives, mask_same_image=mask)  # type: ignore[arg-type]
    objective(encoder, batch, generator).total.backward()
    assert encoder.logits.grad is not None
    taught = encoder.logits.grad[:, 0] < 0
    same = encoder.images == encoder.texts
    return Pairs(int((taught & same).sum()), int((taught & ~same).sum()))


def many_negative_pairs(negatives: str, mask: bool = True) -> tuple[int, int]:
    """The pairs of 300 batches: how many are of one image, and how many of two."""
    results = [negative_pairs(seed, negatives, mask) for seed in range(300)]
    return sum(pairs.same_image for pairs in results), sum(pairs.other_image for pairs in results)


def pairs_by_rule() -> dict[str, tuple[int, int]]:
    """The same for each way to draw, and without the mask."""
    return {
        "masked": many_negative_pairs("masked"),
        "floor": many_negative_pairs("floor"),
        "uniform": many_negative_pairs("uniform"),
        "no mask": many_negative_pairs("masked", mask=False),
    }
