"""Reads what a run wrote about its training: `metrics.csv` of the run folder."""

from __future__ import annotations

import csv
from pathlib import Path

METRICS = "metrics.csv"


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a `metrics.csv`; empty if there is none. A row cut short by a kill is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row.get("step") or "").isdigit() and None not in (*row, *row.values())]


def curve(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in points], [value for _, value in points]
