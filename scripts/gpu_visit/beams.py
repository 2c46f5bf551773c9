"""Text generation: greedy and beam search here and by transformers, on the same weights."""

from __future__ import annotations

from itertools import repeat

import torch
from benchmark.counting import count_generation
from benchmark.record import as_record

from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add
from gpu_visit.steps import Steps


def measure(options: VisitOptions, add: Add) -> None:
    """Time both searches in turn, and count what they compute."""
    size = workload(options)
    batch = size.beams_batch
    steps = Steps(recipe(size.stage2, batch), benchmark_options(options, batch, steps=3), add)
    work = steps.stage.generation_workload(("huggingface", "labelled"), steps.model, steps.options)
    assert work is not None
    figures = steps.runner.time(work.plans, lambda: repeat(work.batch), lambda _: work.amounts, steps.options.steps)
    with torch.no_grad(), steps.runner.autocast():
        counts = count_generation(work.plans, work.batch.to(steps.device), steps.model)
    for figure in figures:
        figure.flops = counts[figure.plan.name]
    for name, plan in as_record(figures, steps.ceiling, {})["plans"].items():
        speed = plan["speed"]
        add(
            "generation",
            plan=name,
            batch=batch,
            **{"ms": 1e3 * plan["step_seconds"], "tokens/s": plan["new_tokens_per_second"]},
            **{"TFLOP/s": plan["flops_per_second"] / 1e12, "share of ceiling": plan["share_of_ceiling"]},
            **{"peak GiB": plan["peak_bytes"] / 2**30, "TFLOP": plan["flops_per_step"] / 1e12},
            against=plan["compared_with"],
            speed=None if speed is None else speed["median"],
            parts=", ".join(f"{part} {1e3 * seconds:.1f}" for part, seconds in plan["part_seconds"].items()),
        )
