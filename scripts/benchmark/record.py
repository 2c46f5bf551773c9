"""Figures of a benchmark as plain values, as they are written to JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmark.timing import PlanFigures

Record = dict[str, Any]


def as_record(figures: Sequence[PlanFigures], ceiling: float, about: Record) -> Record:
    """Plans that were measured together.

    Args:
        figures: Of each plan.
        ceiling: FLOP/s of a large matrix product on the same device.
        about: What was run, on what.
    """
    plans: Record = {}
    for plan in figures:
        first = next(other for other in figures if other.plan.group == plan.plan.group)
        plans[plan.plan.name] = _plan_record(plan, first, ceiling)
    return {**about, "ceiling_flops_per_second": ceiling, "plans": plans}


def _plan_record(plan: PlanFigures, first: PlanFigures, ceiling: float) -> Record:
    parts = {part: statistics.median(step[part] for step in plan.seconds) for part in plan.seconds[0]}
    seconds, flops = sum(parts.values()), sum(plan.flops.values())
    amounts = {name: statistics.mean(step[name] for step in plan.amounts) for name in plan.amounts[0]}
    rates = {f"{name}_per_second": amount / seconds for name, amount in amounts.items()}
    return {
        "about": plan.plan.about,
        "step_seconds": seconds,
        **rates,
        "amounts": amounts,
        "part_seconds": parts,
        "compared_with": first.plan.name,
        "speed": ratios([sum(step.values()) for step in first.seconds], [sum(step.values()) for step in plan.seconds]),
        "speed_by_processor_time": ratios(first.busy, plan.busy),
        "flops_per_step": flops,
        "share_of_flops": flops / sum(first.flops.values()),
        "part_flops": plan.flops,
        "flops_per_second": flops / seconds,
        "share_of_ceiling": flops / seconds / ceiling,
        **asdict(plan.memory),
    }


def ratios(first: Sequence[float], other: Sequence[float]) -> Record | None:
    """How much faster the second is, turn by turn: median and quartiles; None where there is nothing to compare."""
    if not all(other):
        return None
    ratios = sorted(a / b for a, b in zip(first, other, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}
