"""The curves of several runs over each other: a chart for each loss and score that two of them logged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blip2_train.evaluation.report.charts import line_chart, read_run
from blip2_train.evaluation.report.logged_scores import COUNTS, logged_format
from blip2_train.evaluation.report.markup import Markup


def compared_charts(folders: Mapping[str, Path]) -> list[Markup]:
    """A chart for each loss and held-out score that two runs or more logged, losses first.

    Args:
        folders: Of the runs, by the names that the lines get.
    """
    runs = {name: read_run(folder) for name, folder in folders.items()}
    logged = {key for run in runs.values() for row in run.rows[:1] for key in row}
    chosen = [key for key in logged if key.startswith("val/") and key.removeprefix("val/") not in COUNTS]
    chosen += [key for key in logged if key.startswith("train/loss")]
    ends = [step for run in runs.values() if run.rows for step in run.steps]
    charts = []
    for key in sorted(chosen, key=lambda key: (not key.partition("/")[2].startswith("loss"), key.partition("/")[::-1])):
        side, _, name = key.partition("/")
        series = [line for n, (label, run) in enumerate(runs.items()) for line in run.line(key, label, n)]
        if len(series) > 1:
            what = logged_format(name)
            title = ", ".join(filter(None, (what.row, what.heading, "held-out" if side == "val" else "train")))
            known = [run.chance(name, side) for run in runs.values()]
            chance = known[0] if all(one == known[0] for one in known) else {}
            charts.append(line_chart(title, series, what, (min(ends), max(ends)), chance))
    return charts
