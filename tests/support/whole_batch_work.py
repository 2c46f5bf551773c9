"""A step whose whole batch is contrasted, by micro-batches in two passes, and in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from reference_cases import SEED, Case, double_model, global_batch, gradients, rows_of
from tiny import image_text_model
from torch import Tensor

from blip2_train.distributed import mean_over_processes, rank, world_size
from blip2_train.objectives.negatives import plan_matching, planned_pairs
from blip2_train.objectives.pairing import BatchLayout
from blip2_train.objectives.representation import RepresentationObjective, _mean_targets, _trimmed
from blip2_train.types import ImageTextBatch

Result = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Losses and gradients."""


def seed(micro_batch: int) -> None:
    """The random state of a micro-batch on this process."""
    torch.manual_seed(100 * rank() + micro_batch)


def parts_of(batch: ImageTextBatch, parts: int) -> list[ImageTextBatch]:
    """This process's micro-batches of a global batch, in the order of the data."""
    layout = BatchLayout(rows=len(batch) // parts // world_size(), processes=world_size(), micro_batches=parts)
    return [rows_of(batch, int(samples[0]), layout.rows) for samples in layout.samples_of(rank())]


def two_passes(model: Any, objective: RepresentationObjective, batches: list[ImageTextBatch]) -> Result:
    """Means over micro-batches and processes of the losses, and gradients as data-parallel training makes them."""
    generator, keep = torch.Generator().manual_seed(SEED), model.vision_model.frozen
    whole = objective.first_pass(model, batches, generator, seed, keep_features=keep)
    losses: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        seed(index)
        output = objective.second_pass(model, batch, whole, index)
        (output.total / len(batches)).backward()
        for name, term in {**output.terms, **output.stats}.items():
            losses[name] = losses.get(name, torch.zeros(())) + mean_over_processes(term) / len(batches)
    return losses, {name: mean_over_processes(gradient) for name, gradient in gradients(model).items()}


def undivided(model: Any, objective: RepresentationObjective, batches: list[ImageTextBatch]) -> Result:
    """The same losses from one graph over all micro-batches, whose dropout follows the same random states."""
    layout = BatchLayout(rows=len(batches[0]), micro_batches=len(batches))
    texts = [_trimmed(batch, max(one.longest_text for one in batches)) for batch in batches]
    images, features, states = [], [], []
    for index, batch in enumerate(batches):
        seed(index)
        images.append(model.encode_image(batch.pixel_values))
        features.append(model.encode_text(*texts[index]))
        states.append(torch.get_rng_state())
    contrast = objective._contrast(
        model,
        torch.cat([one.image_features for one in images]),
        torch.cat(features),
        torch.cat([batch.image_ids for batch in batches]),
        layout,
    )
    choices = objective._choose(contrast, layout, torch.Generator().manual_seed(SEED))
    everything = type(texts[0])(*(torch.cat(part) for part in zip(*texts, strict=True)))
    plans = plan_matching(choices, layout, limited=model.vision_model.frozen)
    patches = torch.cat([one.patch_features for one in images])
    count, total = _mean_targets(everything, layout, features[0].dtype), contrast.loss
    losses = {"itc": contrast.loss.detach()}
    for index in range(len(batches)):
        torch.set_rng_state(states[index])
        pairs = planned_pairs(model, images[index], patches, texts[index], everything, plans[index], layout)
        itm, _ = objective._match(model, pairs, layout.rows)
        itg = objective._generate(model, images[index], texts[index], count)
        for name, term in (("itm", itm), ("itg", itg)):
            losses[name] = losses.get(name, 0) + term.detach() / len(batches)
        total = total + (itm + itg) / len(batches)
    total.backward()
    return losses, gradients(model)


def compared(case: Case, parts: int, make: Callable[[], Any] = double_model) -> Result:
    """A case of the plain reference in two passes."""
    rules, size, images = case
    return two_passes(make(), RepresentationObjective(**rules), parts_of(global_batch(size, images), parts))


def trained_tower() -> Any:
    """A tiny model in float64 whose tower trains, without dropout."""
    return image_text_model(vision={"frozen": False}).double().train()


def work(cases: dict[int, list[tuple[Case, int]]]) -> dict[str, list[Result]]:
    """The cases of this number of processes, and one with a trained tower."""
    return {
        "frozen": [compared(case, parts) for case, parts in cases[world_size()]],
        "trained": [
            compared(({"gather": gather}, 12, "repeated"), 2, trained_tower) for gather in ("detached", "full")
        ],
    }
