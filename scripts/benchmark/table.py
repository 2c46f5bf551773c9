"""A record of a benchmark as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

Column = Callable[[dict[str, Any]], str]
"""From the record of a plan to a cell."""
_MEMORY: dict[str, Column] = {
    "peak_bytes": lambda plan: "kept" if plan["peak_kind"] == "kept for backward" else "peak",
    "alive_bytes": lambda plan: "alive",
}
"""Headings of the columns on memory."""
_ABOUT_MEMORY = {
    "kept": "kept: tensors kept for backward, weights left out",
    "peak": "peak: most allocated, weights included",
    "alive": "alive: most that tensors took at a time, weights left out",
}


def as_table(record: dict[str, Any]) -> Table:
    """One row per plan: milliseconds by part, what the whole step comes to, and how it compares."""
    plans = record["plans"]
    title = f"{record['recipe']}, {record['what']}, batch {record['batch_size']}, {record['device']}, "
    table = Table(title=f"{title}precision {record['precision']}", caption=_caption(record), caption_justify="left")
    table.add_column("plan", no_wrap=True)
    columns = _columns(plans)
    for heading in columns:
        table.add_column(heading, justify="right")
    group = None
    for name, plan in plans.items():
        if group not in (None, plan["compared_with"]):
            table.add_section()
        group = plan["compared_with"]
        table.add_row(name, *(cell(plan) for cell in columns.values()))
    return table


def _columns(plans: dict[str, dict[str, Any]]) -> dict[str, Column]:
    first = next(iter(plans.values()))
    parts = list(dict.fromkeys(part for plan in plans.values() for part in plan["part_seconds"]))
    columns = {f"{_lines(part)}\nms": _part(part) for part in parts}
    columns["step\nms"] = lambda plan: f"{1e3 * plan['step_seconds']:.1f}"
    for name in first["amounts"]:
        columns[f"{_lines(name)}\n/s"] = _rate(name)
    columns["speed"] = lambda plan: _speed(plan["speed"])
    if first["speed_by_processor_time"] is not None:
        columns["by CPU\ntime"] = lambda plan: _speed(plan["speed_by_processor_time"])
    unit = next(iter(first["amounts"]))
    columns[f"GFLOP\n/{unit.removesuffix('s')}"] = lambda plan: (
        f"{plan['flops_per_step'] / plan['amounts'][unit] / 1e9:.{1 if first['flops_per_step'] > 1e11 else 3}f}"
    )
    columns["FLOPs"] = lambda plan: f"{plan['share_of_flops']:.3f}"
    columns["TFLOP\n/s"] = lambda plan: f"{plan['flops_per_second'] / 1e12:.3f}"
    columns["of\nceiling"] = lambda plan: f"{100 * plan['share_of_ceiling']:.0f} %"
    for key, name in _MEMORY.items():
        most = max(plan[key] or 0 for plan in plans.values())
        if most:
            columns |= _memory(name(first), key, "MiB" if most < 2**30 else "GiB")
    return columns


def _memory(heading: str, key: str, unit: str) -> dict[str, Column]:
    scale, digits = (2**20, 1) if unit == "MiB" else (2**30, 2)
    return {f"{heading}\n{unit}": lambda plan: f"{plan[key] / scale:.{digits}f}"}


def _part(part: str) -> Column:
    return lambda plan: f"{1e3 * plan['part_seconds'][part]:.1f}" if part in plan["part_seconds"] else ""


def _rate(name: str) -> Column:
    return lambda plan: f"{plan[f'{name}_per_second']:.{1 if plan[f'{name}_per_second'] >= 100 else 2}f}"


def _speed(ratios: dict[str, float] | None) -> str:
    return "" if ratios is None else f"{ratios['median']:.2f}x"


def _lines(name: str) -> str:
    return name.replace("_", "\n")


def _caption(record: dict[str, Any]) -> str:
    plans = record["plans"]
    lines = [f"{name}: {plan['about']}" for name, plan in plans.items()]
    first, ceiling = next(iter(plans.values())), record["ceiling_flops_per_second"] / 1e12
    lines += [
        f"ms: medians of {record['steps']} steps, plans in turn; {record['data']}",
        "speed: of whole steps, against the first plan of the group, median over turns; FLOPs: likewise",
        f"ceiling: {ceiling:.3f} TFLOP/s, a square matrix product in this run",
    ]
    lines += [_ABOUT_MEMORY[name(first)] for key, name in _MEMORY.items() if any(plan[key] for plan in plans.values())]
    return "\n".join(lines)
