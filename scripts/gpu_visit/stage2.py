"""Stage 2: this project's step beside transformers' on the same weights."""

from __future__ import annotations

from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add
from gpu_visit.steps import Steps

COMPARED = ("huggingface", "labelled", "tower")


def measure(options: VisitOptions, add: Add) -> None:
    """The plans in turn."""
    size = workload(options)
    batch = size.stage2_batch
    steps = Steps(recipe(size.stage2, batch), benchmark_options(options, batch), add)
    plans = steps.stage.build_plans(COMPARED, steps.model, steps.objective)
    steps.time("stage 2", plans, batch)
