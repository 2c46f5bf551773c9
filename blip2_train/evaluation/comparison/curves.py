"""The curves of several runs over each other: a chart for each loss and score that two of them logged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from blip2_train.evaluation.report.charts import MOST_POINTS, Series, line_chart
from blip2_train.evaluation.report.logged_scores import COUNTS, logged_format
from blip2_train.evaluation.report.markup import Markup
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics


def compared_charts(folders: Mapping[str, Path]) -> list[Markup]:
    """A chart for each loss and held-out score that two runs or more logged, losses first.

    Args:
        folders: Of the runs, by the names that the lines get.
    """
    runs = {name: read_metrics(folder / METRICS_FILE) for name, folder in folders.items()}
    logged = {key for rows in runs.values() for row in rows[:1] for key in row}
    chosen = [key for key in logged if key.startswith("val/") and key.removeprefix("val/") not in COUNTS]
    chosen += [key for key in logged if key.startswith("train/loss")]
    ends = [int(row["step"]) for rows in runs.values() for row in (rows[:1] + rows[-1:])]
    charts = []
    for key in sorted(chosen, key=lambda key: (not key.partition("/")[2].startswith("loss"), key.partition("/")[::-1])):
        side, _, name = key.partition("/")
        series: list[Series] = []
        for label, rows in runs.items():
            points = [(s, v) for s, v in zip(*curve(rows, key), strict=True) if math.isfinite(v)]
            if points:
                thin = points[:: -(-len(points) // MOST_POINTS)]
                series.append((label, [s for s, _ in thin], [v for _, v in thin]))
        if len(series) > 1:
            what = logged_format(name)
            title = ", ".join(filter(None, (what.row, what.heading, "held-out" if side == "val" else "train")))
            charts.append(line_chart(title, series, what, (min(ends), max(ends))))
    return charts
