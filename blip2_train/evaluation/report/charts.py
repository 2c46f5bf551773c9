"""Curves of a run and the spread of scores, drawn as SVG inside the page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from blip2_train.evaluation.metrics.metric_format import MetricFormat
from blip2_train.evaluation.report.logged_scores import COUNTS, logged_format
from blip2_train.evaluation.report.markup import Markup, element, joined
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 190, 44, 10, 10, 24
MOST_CHARTS, MOST_POINTS, MOST_DOTS, BINS = 8, 300, 25, 20
_FAMILY = re.compile(r"(?P<family>.*_r)\d+")
Series = tuple[str, list[int], list[float]]


def run_charts(folder: Path) -> list[Markup]:
    """A chart for each loss of a run, in training and held out, and for each held-out score; empty without rows.

    Metrics of one family (R@1, R@5, R@10) share a chart; at most `MOST_CHARTS` are drawn, losses first.
    """
    rows = read_metrics(folder / METRICS_FILE)
    logged = {key for row in rows for key, value in row.items() if value}
    names = {key.removeprefix("val/") for key in logged if key.startswith("val/")} - set(COUNTS)
    names |= {key.removeprefix("train/") for key in logged if key.startswith("train/loss_")}
    if not any(name.startswith("loss") for name in names) and "train/loss" in logged:
        names.add("loss")
    span = (int(rows[0]["step"]), int(rows[-1]["step"])) if rows else (0, 0)
    families: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (not name.startswith("loss"), name)):
        match = _FAMILY.fullmatch(name)
        families.setdefault(match["family"] if match else name, []).append(name)
    charts = []
    for family in families.values():
        series: list[Series] = []
        for name in sorted(family, key=lambda name: (len(name), name)):
            what, alone = logged_format(name), len(family) == 1
            held = "held-out" if alone else what.label
            for label, key in (("train", f"train/{name}"), (held, f"val/{name}")):
                steps, values = curve(rows, key)
                points = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
                if points and (name.startswith("loss") or key.startswith("val/")):
                    thin = points[:: -(-len(points) // MOST_POINTS)]
                    series.append((label, [s for s, _ in thin], [v for _, v in thin]))
        if series:
            what = logged_format(family[0])
            title = f"{what.row} recall (%)" if len(family) > 1 else ", ".join(filter(None, (what.row, what.heading)))
            charts.append(line_chart(title, series, what, span))
    return charts[:MOST_CHARTS]


def line_chart(title: str, series: Sequence[Series], what: MetricFormat, span: tuple[int, int]) -> Markup:
    """Lines over optimiser steps, dots where there are few; shares are drawn from 0 to 100 %.

    Args:
        title: Above the chart.
        series: Label, steps, values on the scorer's scale.
        what: How values are shown.
        span: First and last step of the axis.
    """
    values = [value for _, _, ys in series for value in ys]
    (first, last), low, high = span, min(values), max(values)
    if what.unit == "%":
        low, high = min(0.0, low), max(100 / what.factor, high)
    elif low == high:
        low, high = low - 0.5, high + 0.5
    colours = [1 if label == "held-out" else index % 4 for index, (label, _, _) in enumerate(series)]

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / max(1, last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    drawn: list[Markup] = []
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        drawn.append(
            element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y(value):.1f}", y2=f"{y(value):.1f}")
        )
        drawn.append(element("text", _ticks(value, what), class_="tick end", x=LEFT - 6, y=f"{y(value) + 3.5:.1f}"))
    for step, side in ((first, "start"), (last, "end")):
        drawn.append(element("text", f"{step:,}", class_=f"tick {side}", x=f"{x(step):.1f}", y=HEIGHT - 6))
    drawn.append(element("text", "optimiser step", class_="middle", x=(LEFT + WIDTH - RIGHT) // 2, y=HEIGHT - 6))
    for colour, (label, xs, ys) in zip(colours, series, strict=True):
        coordinates = [(f"{x(a):.1f}", f"{y(b):.1f}") for a, b in zip(xs, ys, strict=True)]
        tooltip = element("title", f"{label}: {what.text(ys[-1])} at step {xs[-1]:,}")
        line = element("polyline", tooltip, points=" ".join(map(",".join, coordinates)))
        dots = [element("circle", cx=a, cy=b, r=2.5) for a, b in coordinates if len(coordinates) <= MOST_DOTS]
        drawn.append(element("g", line, *dots, class_=f"line line-{colour}"))
    description = "; ".join(f"{label} from {what.text(ys[0])} to {what.text(ys[-1])}" for label, _, ys in series)
    keys = [
        element("span", label, class_=f"key line-{colour}")
        for colour, (label, _, _) in zip(colours, series, strict=True)
    ]
    caption = element("figcaption", element("b", title), element("span", joined(*keys), class_="keys"))
    svg = element(
        "svg", joined(*drawn), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}: {description}"
    )
    return element("figure", caption, svg, class_="chart")


def histogram(values: Sequence[float], what: MetricFormat) -> Markup:
    """How many examples have which score; nothing for fewer than two different ones."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if low == high:
        return Markup("")
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    bars = []
    for index, count in enumerate(counts):
        start, end = (low + (high - low) * edge / BINS for edge in (index, index + 1))
        size = 100 * count / max(counts)
        tooltip = element("title", f"{what.text(start)} to {what.text(end)}: {count:,} examples")
        bars.append(
            element("rect", tooltip, x=index * 16 + 1, width=14, y=f"{100 - size:.1f}", height=f"{size:.1f}", rx=2)
        )
    description = f"{len(values):,} examples have {what.label} from {what.text(low)} to {what.text(high)}"
    svg = element(
        "svg",
        joined(*bars),
        viewBox=f"0 0 {BINS * 16} 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=description,
    )
    ends = element("div", element("span", what.text(low)), element("span", what.text(high)), class_="ends")
    title = f"{what.heading} of single examples ({len(values):,})"
    return element("figure", element("figcaption", element("b", title)), svg, ends, class_="chart spread")


def _ticks(value: float, what: MetricFormat) -> str:
    return f"{value * what.factor:.3g}"
