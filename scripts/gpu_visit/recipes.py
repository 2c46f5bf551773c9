"""What is measured at each size of a visit: recipes, batches, steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from benchmark.options import BenchmarkOptions
from omegaconf import DictConfig

from blip2_train.config.compose import compose
from gpu_visit.options import VisitOptions


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A size of a visit."""

    stage1: str
    """Recipe."""
    stage2: str
    """Recipe with a decoder-only language model."""
    encoder_decoder: str
    """Recipe with another kind of language model, whose attention is looked at too."""
    trained_tower: str
    """Recipe that trains the tower on larger images, likewise."""
    batches: tuple[int, ...]
    """Samples per micro-batch; all plans are compared at the first, the others show how the step grows."""
    stage2_batch: int
    beams_batch: int
    steps: int
    """Timed steps of each plan."""
    new_tokens: int
    loader_steps: int
    photographs: int
    """Distinct images that the loader reads again and again."""


FULL = Workload(
    stage1="stage1_vit_g", stage2="stage2_vit_g_opt_2.7b", encoder_decoder="stage2_vit_g_flan_t5_xl",
    trained_tower="caption_coco_opt_2.7b", batches=(100, 32, 256, 400), stage2_batch=100, beams_batch=32, steps=8,
    new_tokens=20, loader_steps=60, photographs=400,
)  # fmt: skip
SMALL = Workload(
    stage1="demo_stage1", stage2="demo_stage2_opt", encoder_decoder="demo_stage2_t5", trained_tower="demo_caption_opt",
    batches=(4, 2), stage2_batch=2, beams_batch=2, steps=2, new_tokens=3, loader_steps=6, photographs=16,
)  # fmt: skip


def workload(options: VisitOptions) -> Workload:
    """That of the visit's size."""
    return SMALL if options.small else FULL


def recipe(name: str, batch: int, *settings: str) -> DictConfig:
    """A recipe with random weights and no start from others, `batch` samples per step."""
    always = ["init_from=null", f"global_batch_size={batch}", "accumulate=1"]
    return compose([f"experiment={name}", *always, *settings])


def benchmark_options(options: VisitOptions, batch: int, **settings: Any) -> BenchmarkOptions:
    """The options of the benchmark, in the precision of the visit: bf16 on a GPU, float32 on a CPU."""
    size = workload(options)
    precision = "bf16" if options.device == "cuda" else "32"
    given: dict[str, Any] = {"device": options.device, "batch_size": batch, "steps": size.steps, "precision": precision}
    return BenchmarkOptions(**(given | {"new_tokens": size.new_tokens} | settings))


def device_of(options: VisitOptions) -> torch.device:
    """The device; matrix products in float32 keep their precision."""
    return torch.device(options.device)
