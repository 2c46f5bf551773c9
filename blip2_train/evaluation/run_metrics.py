"""Reads the scores that a training run wrote: `metrics.csv` and `results.json` of the run folder."""

from __future__ import annotations

import csv
from pathlib import Path

from blip2_train.errors import DamagedFile
from blip2_train.system.atomic_write import read_checked
from blip2_train.system.records import check_record

METRICS_FILE, RESULTS = "metrics.csv", "results.json"


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a `metrics.csv`; empty if there is none. A row cut short by a kill is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row.get("step") or "").isdigit() and None not in (*row, *row.values())]


def read_results(folder: Path) -> dict[str, float]:
    """The numbers of `results.json` in a run folder; empty if there is none.

    Raises:
        DamagedFile: if it is not what was written.
    """
    path = folder / RESULTS
    instead = f"the scores are in {METRICS_FILE} beside it, and resume_from={folder} writes it again once it is removed"
    if not path.is_file():
        return {}
    return check_record(read_checked(path, instead), dict[str, float], path, instead, DamagedFile)


def smaller_is_better(name: str) -> bool:
    """Whether of a monitored score the smallest is the best: of a loss.

    Example:
        >>> smaller_is_better("val/loss_lm"), smaller_is_better("val/cider")
        (True, False)
    """
    return "loss" in name


def curve(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in points], [value for _, value in points]
