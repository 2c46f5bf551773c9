"""The vision tower as it is and in 8 bits, each also compiled block by block."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from benchmark.plans import Plan
from plain import Mark
from torch import Tensor

from blip2_train.errors import ConfigError
from blip2_train.models.tower_quantization import TOWER_QUANTIZATIONS, quantize_tower
from blip2_train.models.vision_tower import VisionTower
from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add
from gpu_visit.steps import Steps


def measure(options: VisitOptions, add: Add) -> None:
    """Time the tower in each way, and compare its features with those of the tower as it is."""
    size = workload(options)
    batch = size.batches[0]
    steps = Steps(recipe(size.stage1, batch), benchmark_options(options, batch), add)
    (plan,) = steps.stage.build_plans(("tower",), steps.model, steps.objective)
    tower: VisionTower = steps.model.vision_model
    side = int(steps.config.image_size)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).to(steps.device)
    steps.time("towers", [plan], batch)
    with steps.runner.autocast():
        plain = tower(images)

    def compare(name: str, other: VisionTower) -> None:
        steps.time("towers", [of_tower(plan, name, other)], batch, counted=plan)
        with steps.runner.autocast():
            add("towers", plan=name, **{"relative feature error": relative_error(other(images), plain)})

    for quantization in TOWER_QUANTIZATIONS:
        try:
            other = in_8_bits(tower, quantization)
        except ConfigError as reason:
            add("towers", plan=quantization, why=str(reason))
            continue
        if quantization != "none":
            compare(quantization, other)
        compile_blocks(other)
        compare("compiled by block" if quantization == "none" else f"{quantization}, compiled by block", other)


def in_8_bits(tower: VisionTower, quantization: str) -> VisionTower:
    """A copy of a tower in 8 bits, or (`none`) as it is.

    Raises:
        ConfigError: if the device or torchao cannot do it.
    """
    other = copy.deepcopy(tower)
    quantize_tower(other, quantization)
    return other


def compile_blocks(tower: VisionTower) -> None:
    """Compile each block in place; blocks of one shape share what is compiled.

    Not by `compiled_passes`, which allow no counting of operations and memory while a block runs.
    """
    for block in tower.blocks:
        block.compile()


def of_tower(plan: Plan, name: str, tower: VisionTower) -> Plan:
    """The plan of another tower alone."""

    def forward(batch: Any, mark: Mark) -> None:
        tower(batch.pixel_values)
        mark("vision")

    return replace(plan, name=name, forward=forward, tower=tower)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference, as a share of the norm of what is expected."""
    return float((actual.float() - expected.float()).norm() / expected.float().norm())
