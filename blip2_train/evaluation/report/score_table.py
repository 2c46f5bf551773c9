"""Scores in a table: a column for each metric, a row for each part of the set."""

from __future__ import annotations

from dataclasses import dataclass

from blip2_train.evaluation.metrics.metric_format import MetricFormat
from blip2_train.evaluation.report.content import TaskReport


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score."""

    text: str
    """As it is shown; empty = there is no such score, `—` = it could not be computed."""
    in_papers: str = ""
    """On the papers' scale, if that is another."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of a task."""

    columns: tuple[MetricFormat, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """Name of the part, and a cell for each column."""
    missing: tuple[tuple[str, str], ...]
    """Scores that could not be computed, and the reasons."""


def score_table(task: TaskReport) -> ScoreTable:
    """Rows and columns of a task's scores, in the order in which they come; the whole set is called `all`."""
    columns: dict[str, MetricFormat] = {}
    for name in task.scores:
        columns.setdefault(task.format(name).label, task.format(name))
    by_cell = {(task.part(name), task.format(name).label): value for name, value in task.scores.items()}

    def cell(part: str, label: str) -> Cell:
        value = by_cell.get((part, label))
        if value is None:
            return Cell(text="—" if (part, label) in by_cell else "")
        return Cell(text=columns[label].text(value), in_papers=columns[label].in_papers(value))

    missing: dict[str, str] = {}
    for name, value in task.scores.items():
        if value is None:
            for_all_parts = name not in task.reasons and name.rpartition("/")[2] in task.reasons
            part = "" if for_all_parts else task.part(name)
            missing[", ".join(filter(None, (task.format(name).label, part)))] = task.reason(name)
    parts = list(dict.fromkeys(part for part, _ in by_cell))
    return ScoreTable(
        columns=tuple(columns.values()),
        rows=tuple((part or "all", tuple(cell(part, label) for label in columns)) for part in parts),
        missing=tuple(missing.items()),
    )
