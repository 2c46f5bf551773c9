"""The ways to run a step that a benchmark compares, all on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from blip2_train.cli.benchmark.plain import Mark, PlainReference, no_mark
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch

ABOUT = {
    "plain": "separate passes, text padded, explicit attention, ITG over queries and text",
    "released": "as plain, but ITG reuses the queries' keys and values (the released code's plan)",
    "released_sdpa": "as released, with scaled_dot_product_attention",
    "padded": "this project's step without trimming the text",
    "shared": "this project's step",
    "compiled": "this project's step, tower and Q-Former by torch.compile",
    "tower": "the vision tower alone",
    "tower_compiled": "the vision tower alone, by torch.compile",
}
Forward = Callable[[ImageTextBatch, Mark], Tensor | None]


@dataclass(frozen=True)
class Plan:
    """One way to run a step."""

    name: str
    forward: Forward
    """From a batch to the loss, or to None where nothing trains; tells the end of each part."""


@dataclass(frozen=True, kw_only=True)
class MarkedObjective(RepresentationObjective):
    """The objective, telling where its three parts end."""

    mark: Mark = no_mark

    def _contrast(self, *arguments: Any) -> Any:
        result = super()._contrast(*arguments)
        self.mark("itc")
        return result

    def _match(self, *arguments: Any) -> Any:
        result = super()._match(*arguments)
        self.mark("itm")
        return result

    def _generate(self, *arguments: Any) -> Any:
        result = super()._generate(*arguments)
        self.mark("itg")
        return result


def build_plans(
    names: Sequence[str], model: ImageTextModel, objective: RepresentationObjective, count_only: bool = False
) -> list[Plan]:
    """The plans of these names, over the weights of `model`.

    Args:
        names: Keys of `ABOUT`.
        model: The model.
        objective: Settings of the losses.
        count_only: The tensors hold no values: negatives are not drawn, nothing is compiled.
    """
    compiled: list[ImageTextModel] = []

    def compile_once() -> ImageTextModel:
        if count_only:
            return model
        if not compiled:
            compiled.append(_compiled(model))
        return compiled[0]

    makers: dict[str, Callable[[], Forward]] = {
        "plain": lambda: _plain(PlainReference(model, objective), count_only),
        "released": lambda: _plain(PlainReference(model, objective, reuse_queries=True), count_only),
        "released_sdpa": lambda: _plain(PlainReference(model, objective, reuse_queries=True, fused=True), count_only),
        "padded": lambda: _ours(model, objective, trim=False),
        "shared": lambda: _ours(model, objective),
        "compiled": lambda: _ours(compile_once(), objective),
        "tower": lambda: _tower(model),
        "tower_compiled": lambda: _tower(compile_once()),
    }
    return [Plan(name, makers[name]()) for name in names]


def _plain(reference: PlainReference, count_only: bool) -> Forward:
    generator = torch.Generator().manual_seed(0)

    def forward(batch: ImageTextBatch, mark: Mark) -> Tensor:
        uniforms = None if count_only else torch.rand(2, len(batch), generator=generator, dtype=torch.float64)
        return reference(batch, uniforms, mark)

    return forward


def _ours(model: ImageTextModel, objective: RepresentationObjective, trim: bool = True) -> Forward:
    generator = torch.Generator().manual_seed(0)
    settings = {name: getattr(objective, name) for name in RepresentationObjective.__dataclass_fields__}

    def forward(batch: ImageTextBatch, mark: Mark) -> Tensor:
        if not trim:
            batch = replace(batch, longest_text=batch.input_ids.shape[1])
        hook = model.vision_model.register_forward_hook(lambda *_: mark("vision"))
        try:
            return MarkedObjective(**settings, mark=mark)(model, batch, generator).total
        finally:
            hook.remove()

    return forward


def _tower(model: ImageTextModel) -> Forward:
    def forward(batch: ImageTextBatch, mark: Mark) -> None:
        model.vision_model(batch.pixel_values)
        mark("vision")

    return forward


def _compiled(model: ImageTextModel) -> ImageTextModel:
    """The same weights, with tower and Q-Former compiled."""
    view = copy.copy(model)
    view._modules = dict(model._modules)
    view.vision_model = torch.compile(model.vision_model)  # type: ignore[assignment]
    view.qformer = torch.compile(model.qformer)  # type: ignore[assignment]
    return view
