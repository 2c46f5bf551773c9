"""What a visit to a GPU should show, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_visit.results import Row

SHARE_OF_CEILING = 0.55
"""Of the measured matmul ceiling that a step of stage 1 reaches at least."""
TIMES_RELEASED = 2.0
"""How much faster than the released plan stage 1 is at least."""


def goal_lines(results: Mapping[str, Any]) -> list[str]:
    """A line for each goal that something was measured for: held, or not held."""
    lines = []
    first: list[Row] = [row for row in results.get("stage1", {"rows": []})["rows"] if row["table"] == "stage 1"]
    ours = [row for row in first if row["plan"] == "shared" and "share of ceiling" in row]
    if ours:
        best = max(row["share of ceiling"] for row in ours)
        lines.append(
            _line(
                f"stage 1 reaches {best:.0%} of the matmul ceiling", best >= SHARE_OF_CEILING, f"{SHARE_OF_CEILING:.0%}"
            )
        )
    for name, what in (
        ("released_whole", "the released plan"),
        ("released", "the released plan with this project's tower"),
    ):
        speeds = [
            row["samples/s"] / other["samples/s"]
            for row in ours
            for other in first
            if other["plan"] == name and other["batch"] == row["batch"] and "samples/s" in other
        ]
        if speeds:
            lines.append(
                _line(
                    f"stage 1 runs at {max(speeds):.2f} x {what}", max(speeds) >= TIMES_RELEASED, f"{TIMES_RELEASED} x"
                )
            )
    tests = [row for row in results.get("tests", {"rows": []})["rows"] if row["table"] == "tests"]
    if tests:
        failed = [row["test"] for row in tests if row["outcome"] == "failed"]
        lines.append(
            _line(f"{len(tests) - len(failed)} of {len(tests)} tests passed or were skipped", not failed, "all")
        )
    return lines


def _line(what: str, held: bool, goal: str) -> str:
    return f"{'held' if held else 'not held'}: {what} (goal: {goal})"
