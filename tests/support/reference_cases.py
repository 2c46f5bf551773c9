"""Batches and models on which the step is compared with the plain reference, in one process or several."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from plain import PlainReference
from slow_losses import loop_losses
from tiny import image_text_batch, image_text_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from blip2_train.distributed import mean_over_processes, rank, world_size
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch, ObjectiveOutput

SEED = 7
Case = tuple[dict[str, Any], int, str]
"""Settings of the objective, samples of all processes together, and which samples show the same image."""
RULES = [
    {"gather": gather, "negatives": negatives, "mask_same_image": mask}
    for gather, negatives, mask in itertools.product(("detached", "full"), ("masked", "floor"), (False, True))
]
IMAGES = {"distinct": lambda row: row, "repeated": lambda row: row // 2, "one": lambda row: 0}
"""Image of each row. With two or three processes, the rows of one image also lie on different ones."""


def global_batch(size: int, images: str) -> ImageTextBatch:
    """A float64 batch whose longest text is in the last row, and shorter than the padded length."""
    batch = image_text_batch(size, seed=3)
    mask = batch.attention_mask.clone()
    mask[-1, :10] = True
    ids = torch.where(mask & (batch.input_ids == 0), 7, batch.input_ids)
    return dataclasses.replace(
        batch,
        pixel_values=batch.pixel_values.double(),
        input_ids=ids,
        attention_mask=mask,
        longest_text=10,
        image_ids=torch.tensor([IMAGES[images](row) for row in range(size)]),
    )


def assert_equal(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Losses, and every gradient relative to its own largest entry (or a thousandth of the largest of all)."""
    for name, loss in expected[0].items():
        assert abs(actual[0][name] - loss) <= tolerance * max(1.0, abs(loss)), f"loss {name}"
    assert actual[1].keys() == expected[1].keys()
    largest = max(gradient.abs().max() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        scale = max(gradient.abs().max(), 1e-3 * largest)
        assert (actual[1][name] - gradient).abs().max() <= tolerance * scale, f"gradient of {name}"


def rows_of(batch: ImageTextBatch, first: int, size: int) -> ImageTextBatch:
    """The samples of one process, with their own longest text."""
    rows = slice(first, first + size)
    mask = batch.attention_mask[rows]
    return dataclasses.replace(
        batch,
        pixel_values=batch.pixel_values[rows],
        input_ids=batch.input_ids[rows],
        attention_mask=mask,
        image_ids=batch.image_ids[rows],
        longest_text=int(mask.sum(dim=1).max()),
        sample_ids=batch.sample_ids[rows],
    )


def uneven_model() -> ImageTextModel:
    """A tiny model whose biases and layer norms are not the neutral ones they start with."""
    model = image_text_model().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


def double_model() -> ImageTextModel:
    return uneven_model().double()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference(case: Case, **options: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of the plain reference with loops for losses, on one process that holds all samples."""
    rules, size, images = case
    model, batch = double_model(), global_batch(size, images)
    objective = RepresentationObjective(**rules)
    uniforms = torch.rand(2, size, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    actual = PlainReference(model, objective, **options).logits(batch, uniforms)
    same = batch.image_ids.tolist() if objective.mask_same_image else list(range(size))
    losses = loop_losses(actual, same, objective.label_smoothing)
    torch.stack(list(losses.values())).sum().backward()
    return {name: loss.detach() for name, loss in losses.items()}, gradients(model)


class Step(nn.Module):
    """The objective as a module, so that data-parallel training can wrap it."""

    def __init__(self, model: ImageTextModel, objective: RepresentationObjective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.output: ObjectiveOutput

    def forward(self, batch: ImageTextBatch) -> Tensor:
        self.output = self.objective(self.model, batch, torch.Generator().manual_seed(SEED))
        return self.output.total


def step(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses (mean over processes) and gradients of the objective, with as many processes as there are."""
    rules, size, images = case
    module = Step(double_model(), RepresentationObjective(**rules))
    share = size // world_size()
    run = module if world_size() == 1 else DistributedDataParallel(module)
    run(rows_of(global_batch(size, images), rank() * share, share)).backward()
    return {name: mean_over_processes(term) for name, term in module.output.terms.items()}, gradients(module.model)


def steps(cases: dict[int, list[Case]]) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """The cases of this number of processes."""
    return [step(case) for case in cases[world_size()]]
