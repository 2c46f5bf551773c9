"""Arithmetic of a step that contrasts the whole batch in two passes, beside one that contrasts its micro-batches.

Counted on tensors without values, at the sizes of the paper: ViT-g, BERT-base with 32 queries, micro-batches of 105 on
one device, captions of the web. What depends on values is given: hard negatives are random.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.comparisons.comparison import Comparison
from blip2_train.models.configs import QFormerConfig, VisionConfig
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.negatives import Choices, MatchingPlan
from blip2_train.objectives.pairing import BatchLayout
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch

ROWS, PARTS, TOKENS = 105, 4, 16
"""Samples of a micro-batch, micro-batches of a step, tokens of a caption (none is padding, as in the packed step)."""
TARGET = 0.04


def compare() -> list[Comparison]:
    """Operations of the whole step, the tower's included."""
    with torch.device("meta"):
        model = ImageTextModel(_tower(), QFormerConfig(weights="random")).train()
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model = model.to_empty(device="cpu")
        tower = _operations(lambda: model.vision_model(torch.empty(1, 3, 224, 224))) * ROWS * PARTS
        model.vision_model = _Given()  # type: ignore[assignment]
        micro = _operations(lambda: _micro(model)) * PARTS
        whole = _operations(lambda: _whole(model))
    ours, other = ((part + tower) / (ROWS * PARTS) / 1e9 for part in (whole, micro))
    return [
        Comparison(
            name="contrast_extra_flops",
            what=f"more arithmetic for contrasting all of {PARTS} x {ROWS} samples (ViT-g), counted",
            ours=f"{ours:.1f} GFLOP a sample",
            other=f"{other:.1f} for micro-batches of {ROWS}",
            ratio=ours / other - 1,
            target=TARGET,
        )
    ]


class _Given(torch.nn.Module):
    """Stands where the tower does; the batches hold features."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values


class _Objective(RepresentationObjective):
    """Plans with negatives drawn at random, as the values of logits are not known here."""

    def _plan(self, choices: Choices, layout: BatchLayout, keep_features: bool) -> list[MatchingPlan]:
        with unset_fake_temporarily():
            generator = torch.Generator().manual_seed(0)
            texts, images = (torch.randint(0, layout.total, (layout.total,), generator=generator) for _ in range(2))
            return super()._plan(Choices(texts, images, torch.ones(layout.total, dtype=torch.bool)), layout, True)


def _micro(model: ImageTextModel) -> None:
    RepresentationObjective()(model, _batch(), torch.Generator()).total.backward()


def _whole(model: ImageTextModel) -> None:
    objective, batches = _Objective(contrast="batch"), [_batch() for _ in range(PARTS)]
    model.query_tokens.requires_grad_(False)  # torch's counter fails on views of it where no gradient is recorded
    whole = objective.first_pass(model, batches, torch.Generator(), lambda micro_batch: None)
    model.query_tokens.requires_grad_()
    for index, batch in enumerate(batches):
        objective.second_pass(model, batch, whole, index).total.backward()


def _operations(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _tower() -> VisionConfig:
    return VisionConfig(name="eva_giant_patch14_clip_224", weights="random", image_size=224)


def _batch() -> ImageTextBatch:
    return ImageTextBatch(
        pixel_values=torch.empty(ROWS, 257, 1408),
        input_ids=torch.ones(ROWS, TOKENS, dtype=torch.int64),
        attention_mask=torch.ones(ROWS, TOKENS, dtype=torch.bool),
        image_ids=torch.zeros(ROWS, dtype=torch.int64),
        longest_text=TOKENS,
        sample_ids=("",) * ROWS,
        rejected=(),
    )
