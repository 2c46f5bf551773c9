"""Stage 1: this project's step, the released plan, and the tower alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmark.plans import Plan
from plain import Mark
from torch import nn

from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add
from gpu_visit.steps import Steps

COMPARED = ("released", "released_sdpa", "shared", "tower")
WEB = (8, 32)
"""Fewest and most tokens of captions from the web."""


def measure(options: VisitOptions, add: Add) -> None:
    """All plans at the first batch size, then this project's step and the tower at the others."""
    size = workload(options)
    first, *others = size.batches
    steps = Steps(recipe(size.stage1, first), benchmark_options(options, first), add)
    plans = {plan.name: plan for plan in steps.stage.build_plans(COMPARED, steps.model, steps.objective)}
    whole = released_whole(plans["released"], steps.model.vision_model)
    steps.time("stage 1", [whole, *plans.values()], first)
    for batch in others:
        steps.time("stage 1", [plans["shared"], plans["tower"]], batch)
    steps.time("stage 1, captions of the web", [whole, plans["released"], plans["shared"]], first, WEB)


def released_whole(released: Plan, tower: nn.Module) -> Plan:
    """The released plan with the released tower's attention: a product, a softmax and a product."""

    def forward(batch: Any, mark: Mark) -> Any:
        with explicit_attention(tower):
            return released.forward(batch, mark)

    about = "the released code's plan, its tower's attention by explicit products"
    return replace(released, name="released_whole", about=about, forward=forward)


@contextmanager
def explicit_attention(tower: nn.Module) -> Iterator[None]:
    """Have timm's attention compute scores, softmax and weighted sum one after the other."""
    fused = [module for module in tower.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
