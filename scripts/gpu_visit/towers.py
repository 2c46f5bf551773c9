"""The vision tower as it is, and compiled block by block."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add
from gpu_visit.steps import Steps


def measure(options: VisitOptions, add: Add) -> None:
    """Time the tower in each way, and compare its features with those of the tower as it is."""
    size = workload(options)
    batch = size.batches[0]
    steps = Steps(recipe(size.stage1, batch), benchmark_options(options, batch), add)
    (tower,) = steps.stage.build_plans(("tower",), steps.model, steps.objective)
    vision = steps.model.vision_model
    side = int(steps.config.image_size)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).to(steps.device)
    steps.time("towers", [tower], batch)
    with steps.runner.autocast():
        plain = vision(images)
    compile_blocks(vision)
    steps.time("towers", [replace(tower, name="compiled by block")], batch)
    with steps.runner.autocast():
        add("towers", plan="compiled by block", **{"relative feature error": relative_error(vision(images), plain)})


def compile_blocks(tower: nn.Module) -> None:
    """Compile each block of a timm tower in place; blocks of one shape share what is compiled."""
    for module in tower.modules():
        if isinstance(getattr(module, "blocks", None), (nn.ModuleList, nn.Sequential)):
            for block in module.blocks:  # type: ignore[union-attr]
                block.compile()


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference, as a share of the norm of what is expected."""
    return float((actual.float() - expected.float()).norm() / expected.float().norm())
