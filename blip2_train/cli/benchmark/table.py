"""Figures of a benchmark as a table and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from blip2_train.cli.benchmark.measure import PlanFigures
from blip2_train.cli.benchmark.plans import ABOUT

PARTS = ("data", "vision", "itc", "itm", "itg", "backward", "optimiser")


def as_record(figures: list[PlanFigures], batch_size: int, ceiling: float, about: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain values.

    Args:
        figures: Of each plan.
        batch_size: Samples per step.
        ceiling: FLOP/s of a large matrix product on the same device.
        about: What was run, on what.
    """
    plans = {}
    for plan in figures:
        seconds, flops = sum(plan.seconds.values()), sum(plan.flops.values())
        plans[plan.name] = {
            "about": ABOUT[plan.name],
            "step_seconds": seconds,
            "samples_per_second": batch_size / seconds,
            "part_seconds": plan.seconds,
            "flops_per_step": flops,
            "part_flops": plan.flops,
            "flops_per_second": flops / seconds,
            "share_of_ceiling": flops / seconds / ceiling,
            "peak_bytes": plan.peak_bytes,
            "peak_kind": plan.peak_kind,
        }
    return {**about, "batch_size": batch_size, "ceiling_flops_per_second": ceiling, "plans": plans}


def as_table(record: dict[str, Any]) -> Table:
    """One row per plan: seconds by part, then what the whole step comes to, beside the first plan."""
    title = f"{record['recipe']}, batch {record['batch_size']}, {record['device']}, precision {record['precision']}"
    table = Table(title=title, caption=_caption(record), caption_justify="left")
    table.add_column("plan", no_wrap=True)
    for part in PARTS:
        table.add_column(f"{part}\nms", justify="right")
    for heading in (
        "step\nms",
        "samples\n/s",
        "speed",
        "GFLOP\n/sample",
        "FLOPs",
        "TFLOP\n/s",
        "of\nceiling",
        "peak\nGiB",
    ):
        table.add_column(heading, justify="right")
    first = next(iter(record["plans"].values()))
    for name, plan in record["plans"].items():
        cells = [f"{1e3 * plan['part_seconds'][p]:.1f}" if p in plan["part_seconds"] else "" for p in PARTS]
        comparable = plan["part_seconds"].keys() == first["part_seconds"].keys()
        table.add_row(
            name,
            *cells,
            f"{1e3 * plan['step_seconds']:.1f}",
            f"{plan['samples_per_second']:.2f}",
            f"{first['step_seconds'] / plan['step_seconds']:.2f}x" if comparable else "",
            f"{plan['flops_per_step'] / record['batch_size'] / 1e9:.1f}",
            f"{plan['flops_per_step'] / first['flops_per_step']:.3f}" if comparable else "",
            f"{plan['flops_per_second'] / 1e12:.3f}",
            f"{100 * plan['share_of_ceiling']:.0f} %",
            f"{plan['peak_bytes'] / 2**30:.2f}",
        )
    return table


def _caption(record: dict[str, Any]) -> str:
    lines = [f"{name}: {plan['about']}" for name, plan in record["plans"].items()]
    kind = next(iter(record["plans"].values()))["peak_kind"]
    lines.append(
        f"ceiling: {record['ceiling_flops_per_second'] / 1e12:.3f} TFLOP/s, a square matrix product in this run"
    )
    lines.append(f"peak: {kind}; ms: medians of {record['steps']} steps, plans in turn; {record['data']}")
    return "\n".join(lines)
