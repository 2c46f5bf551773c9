"""Stage 1: its model, its batches, and the ways to run its step that are compared.

Shape letters: B batch, T text tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from plain import Mark, PlainReference, no_mark
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from benchmark.options import BenchmarkOptions
from benchmark.plans import TOWER_PLANS, CompiledOnce, Forward, Plan, marked, tower_plan
from benchmark.stage import Stage
from benchmark.workload import leave_tower_out, random_images, random_lengths, tower_config
from blip2_train.config.compose import instantiate
from blip2_train.models import packing
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch

_CPU = ("plain", "released", "released_sdpa", "padded", "shared")


class RepresentationStage(Stage):
    """Contrast, matching and grounded generation."""

    fewest_samples = 2
    default_plans: ClassVar = {"cpu": _CPU, "cuda": (*_CPU, "compiled", "tower", "tower_compiled")}
    about: ClassVar = {
        "plain": "separate passes, text padded, explicit attention, ITG over queries and text",
        "released": "as plain, but ITG reuses the queries' keys and values (the released code's plan)",
        "released_sdpa": "as released, with scaled_dot_product_attention",
        "padded": "this project's step with all padding of the text computed",
        "shared": "this project's step",
        "compiled": "this project's step, tower and Q-Former by torch.compile",
    }

    def build_model(self, config: DictConfig, options: BenchmarkOptions) -> ImageTextModel:
        """The recipe's model with random weights, on torch's default device, in training mode."""
        qformer = instantiate(config.model.qformer)
        model = ImageTextModel(tower_config(config, options), qformer, config.model.temperature)
        if not options.vision:
            leave_tower_out(model)
        return model.train()

    def synthetic_batch(
        self, model: ImageTextModel, options: BenchmarkOptions, max_text_length: int, generator: torch.Generator
    ) -> ImageTextBatch:
        """Random images and captions on the CPU, padded to `max_text_length`."""
        return random_batch(model, random_lengths(options, generator), max_text_length, generator)

    def amounts(self, model: ImageTextModel, batch: ImageTextBatch) -> dict[str, float]:
        """The samples of a batch."""
        return {"samples": float(len(batch))}

    def build_plans(
        self, names: Sequence[str], model: ImageTextModel, objective: Any, count_only: bool = False
    ) -> list[Plan]:
        """The plans of these names, over the weights of `model`; when counting, negatives are not drawn."""
        compiled = CompiledOnce(model, count_only)
        makers: dict[str, Callable[[], Forward]] = {
            "plain": lambda: _plain(PlainReference(model, objective), count_only),
            "released": lambda: _plain(PlainReference(model, objective, reuse_queries=True), count_only),
            "released_sdpa": lambda: _plain(
                PlainReference(model, objective, reuse_queries=True, fused=True), count_only
            ),
            "padded": lambda: _ours(model, objective, pack=False),
            "shared": lambda: _ours(model, objective, count_only=count_only),
            "compiled": lambda: _ours(compiled(), objective, count_only=count_only),
        }
        return [
            tower_plan(name, model, compiled, count_only)
            if name in TOWER_PLANS
            else Plan(name=name, about=self.about[name], forward=makers[name]())
            for name in names
        ]

    def use_precision(self, model: ImageTextModel, options: BenchmarkOptions) -> None:
        """The tower keeps the recipe's precision."""


def random_batch(
    model: ImageTextModel, lengths: Tensor, max_text_length: int, generator: torch.Generator
) -> ImageTextBatch:
    """Random images and captions of `lengths` `(B,)` tokens on the CPU, padded to `max_text_length`."""
    size, mask = len(lengths), torch.arange(max_text_length)[None, :] < lengths[:, None]
    vocabulary = model.qformer_config.vocab_size
    return ImageTextBatch(
        pixel_values=random_images(model, size, generator),
        input_ids=torch.randint(1, vocabulary - 1, (size, max_text_length), generator=generator) * mask,
        attention_mask=mask,
        image_ids=torch.arange(size),
        longest_text=int(lengths.max()),
        sample_ids=tuple(f"synthetic/{row}" for row in range(size)),
        rejected=(),
    )


@contextmanager
def given_lengths(size: int, tokens: int) -> Iterator[None]:
    """Let the masks of texts, in a step on tensors without values, have as many real tokens as true ones would.

    Args:
        size: Samples B of the batch.
        tokens: Real tokens of all its texts.

    The texts of a pass of 3B rows are taken to have the mean length, as if each was one image's negative. The longest
    mask belongs to whole texts, one that is shorter by a token to those without their last.
    """
    plain, longest = packing.real_tokens, 0

    def real_tokens(attention_mask: Tensor) -> Tensor:
        nonlocal longest
        rows, length = attention_mask.shape
        longest = max(longest, length)
        return torch.arange(rows * tokens // size - rows * (longest - length))

    packing.real_tokens = real_tokens
    try:
        yield
    finally:
        packing.real_tokens = plain


class MarkedObjective(RepresentationObjective):
    """The objective, reporting where its three parts end."""

    def __init__(self, mark: Mark = no_mark, **settings: Any) -> None:
        super().__init__(**settings)
        self.mark = mark

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


def _plain(reference: PlainReference, count_only: bool) -> Forward:
    generator = torch.Generator().manual_seed(0)

    def forward(batch: ImageTextBatch, mark: Mark) -> Tensor:
        uniforms = None if count_only else torch.rand(2, len(batch), generator=generator, dtype=torch.float64)
        return reference(batch, uniforms, mark)

    return forward


def _ours(
    model: ImageTextModel, objective: RepresentationObjective, *, pack: bool = True, count_only: bool = False
) -> Forward:
    generator = torch.Generator().manual_seed(0)
    settings = {name: getattr(objective, name) for name in inspect.signature(RepresentationObjective).parameters}

    def forward(batch: ImageTextBatch, mark: Mark) -> Tensor:
        batch = batch if pack else replace(batch, longest_text=batch.input_ids.shape[1])
        with unset_fake_temporarily():
            known = given_lengths(len(batch), int(batch.attention_mask.sum())) if count_only else nullcontext()
        with marked(mark, {"vision": model.vision_model}), known, _packing(model, pack):
            return MarkedObjective(**settings, mark=mark)(model, batch, generator).total

    return forward


@contextmanager
def _packing(model: ImageTextModel, pack_text: bool) -> Iterator[None]:
    """Compute padding, or do not, for a while."""
    config = model.qformer_config
    model.qformer_config = replace(config, pack_text=pack_text)
    try:
        yield
    finally:
        model.qformer_config = config
