"""What one and two processes do alike in `test_two_processes`."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from reference_cases import Step, gradients, rows_of, uneven_model
from tiny import image_text_batch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from blip2_train.distributed import gather_rows_with_gradient, mean_over_processes, rank, world_size
from blip2_train.evaluation.held_out_pairs import RepresentationEvaluation
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective

GATHERS = ("detached", "full")
SHARES = ((4, 3), (2, 2, 2))
"""Sizes of the held-out batches of each of two processes."""


def undecided_model() -> ImageTextModel:
    """A model that calls some pairs a match and others not, so that accuracies are neither 0 nor 1."""
    model = uneven_model()
    with torch.no_grad():
        model.itm_head.bias += torch.tensor([0.0, 8.6])
    return model


def one_step(gather: str, checkpointing: bool = False) -> dict[str, Any]:
    """Losses and statistics (means over processes) and gradients of a global batch of 8."""
    module = Step(undecided_model(), RepresentationObjective(gather=gather))  # type: ignore[arg-type]
    module.model.qformer.gradient_checkpointing = checkpointing
    module.model.qformer.train()  # there is no dropout
    share = 8 // world_size()
    batch = rows_of(image_text_batch(8, seed=5), rank() * share, share)
    run = module if world_size() == 1 else DistributedDataParallel(module)
    run(batch).backward()
    means = [
        {name: mean_over_processes(value.float()).item() for name, value in values.items()}
        for values in (module.output.terms, module.output.stats)
    ]
    return {"losses": means[0], "stats": means[1], "gradients": gradients(module.model)}


def held_out_scores() -> dict[str, float]:
    """Scores of 13 pairs, two of which show the same image, on one process or shared by two."""
    model, evaluation = undecided_model(), RepresentationEvaluation(seed=3)
    batch = image_text_batch(13, seed=6)
    images = batch.image_ids.clone()
    pixels = batch.pixel_values.clone()
    images[8], pixels[8] = images[2], pixels[2]
    batch = dataclasses.replace(batch, image_ids=images, pixel_values=pixels)
    first = 0
    for process, sizes in enumerate(SHARES):
        for size in sizes:
            if world_size() == 1 or process == rank():
                evaluation.add(model, rows_of(batch, first, size))
            first += size
    return evaluation.compute(model, torch.device("cpu"), batch_size=4 + 3 * rank())


def owned_gradient() -> Tensor:
    """Gradient of this process's two rows, which process r weights by `10 ** r` times their position counted from 1."""
    rows = torch.zeros(2, 1, requires_grad=True)
    weights = torch.arange(1.0, 5.0)[:, None] * 10 ** rank()
    (gather_rows_with_gradient(rows) * weights).sum().backward()
    assert rows.grad is not None
    return rows.grad


def work() -> dict[str, Any]:
    """Everything that the tests ask of one of two processes."""
    return {
        "steps": {gather: one_step(gather) for gather in GATHERS},
        "checkpointed": one_step("full", checkpointing=True),
        "scores": held_out_scores(),
        "gathered": owned_gradient(),
    }
