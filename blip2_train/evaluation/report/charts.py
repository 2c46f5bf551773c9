"""Curves of a run and the spread of scores, drawn as SVG inside the page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2_train.errors import DamagedFile
from blip2_train.evaluation.metrics.metric_format import MetricFormat
from blip2_train.evaluation.report.logged_scores import COUNTS, logged_format
from blip2_train.evaluation.report.markup import Markup, element, joined
from blip2_train.evaluation.report.scale import round_ticks, value_range
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics, read_results

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 190, 44, 12, 12, 34
MOST_CHARTS, MOST_POINTS, MOST_DOTS, BINS, COLOURS = 8, 300, 25, 20, 6
_FAMILY = re.compile(r"(?P<family>.*_r)(?P<k>\d+)")


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    """On the scorer's scale."""
    number: int
    """Of the line in its chart, from 0: decides its colour, and its dashes where colours repeat."""

    @property
    def colour(self) -> int:
        """0 … 5."""
        return self.number % COLOURS

    @property
    def dashes(self) -> str | None:
        """Lengths of strokes and gaps in pixels, another pattern each time that the colours begin anew; None = none.

        Example:
            >>> [Series(label="", steps=[], values=[], number=number).dashes for number in (5, 6, 17)]
            [None, '9 3', '9 3 2 3']
        """
        turn = self.number // COLOURS
        return f"9 3{' 2 3' * (turn - 1)}" if turn else None


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What a training run logged, and its results."""

    rows: list[dict[str, str]]
    results: Mapping[str, float]

    def families(self) -> dict[str, list[str]]:
        """Names of metrics by chart, losses first; those of one family (R@1, R@5, R@10) share one."""
        logged = {key for row in self.rows for key, value in row.items() if value}
        names = {key.removeprefix("val/") for key in logged if key.startswith("val/")} - set(COUNTS)
        names |= {key.removeprefix("train/") for key in logged if key.startswith("train/loss_")}
        if not any(name.startswith("loss") for name in names) and "train/loss" in logged:
            names.add("loss")
        families: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda name: (not name.startswith("loss"), name)):
            match = _FAMILY.fullmatch(name)
            families.setdefault(match["family"] if match else name, []).append(name)
        return {family: sorted(names, key=lambda name: (len(name), name)) for family, names in families.items()}

    def line(self, key: str, label: str, number: int) -> list[Series]:
        """The line of a logged value, if there is one."""
        points = [(s, v) for s, v in zip(*curve(self.rows, key), strict=True) if math.isfinite(v)]
        thin = points[:: -(-len(points) // MOST_POINTS)] if points else []
        steps, values = [step for step, _ in thin], [value for _, value in thin]
        return [Series(label=label, steps=steps, values=values, number=number)] if thin else []

    def chance(self, name: str, side: str = "") -> dict[str, float]:
        """Levels of a model that has learned nothing, by label; with `side` only those of `train` or `val`."""
        known = {"chance": f"chance/{name}", "chance, held-out": f"chance/val_{name}"}
        levels = {label: self.results[key] for label, key in known.items() if key in self.results}
        if side and len(levels) > 1:
            levels = {"chance": levels["chance, held-out" if side == "val" else "chance"]}
        match, pairs = _FAMILY.fullmatch(name), self.results.get("val/pairs")
        if match and pairs:
            levels[f"chance of R@{match['k']}"] = 100 * min(1.0, int(match["k"]) / pairs)
        return levels

    @property
    def steps(self) -> tuple[int, int]:
        """First and last."""
        return (int(self.rows[0]["step"]), int(self.rows[-1]["step"])) if self.rows else (0, 0)


def read_run(folder: Path) -> LoggedRun:
    """The run in a folder, which may be empty; without results where they are damaged."""
    try:
        results = read_results(folder)
    except DamagedFile:
        results = {}
    return LoggedRun(rows=read_metrics(folder / METRICS_FILE), results=results)


def run_charts(folder: Path) -> list[Markup]:
    """A chart for each loss of a run, in training and held out, and for each held-out score; empty without rows.

    Metrics of one family (R@1, R@5, R@10) share a chart; at most `MOST_CHARTS` are drawn, losses first.
    """
    run = read_run(folder)
    charts = []
    for family, names in run.families().items():
        lines: list[Series] = []
        for number, name in enumerate(names):
            if name.startswith("loss"):
                lines += run.line(f"train/{name}", "train", 0)
            label = "held-out" if len(names) == 1 else logged_format(name).label
            lines += run.line(f"val/{name}", label, 1 if len(names) == 1 else number)
        if lines:
            charts.append(
                line_chart(_title(family, names), lines, logged_format(names[0]), run.steps, run.chance(names[0]))
            )
    return charts[:MOST_CHARTS]


def line_chart(
    title: str,
    series: Sequence[Series],
    what: MetricFormat,
    span: tuple[int, int],
    chance: Mapping[str, float] | None = None,
) -> Markup:
    """Lines over optimiser steps, dots where there are few; the scale follows them.

    Args:
        title: Above the chart.
        series: The lines.
        what: How values are shown.
        span: First and last step of the axis.
        chance: Levels by label: dashed lines, or marks at the edge beyond which they lie.
    """
    many = [value for one in series if len(one.values) > MOST_DOTS for value in one.values]
    few = [value for one in series if len(one.values) <= MOST_DOTS for value in one.values]
    low, high = value_range(many, few)
    if what.unit == "%":
        low, high = max(low, 0.0), min(high, 100 / what.factor)
        low, high = (low, high) if low < high else (0.0, 100 / what.factor)
    first, last = span = (0 if span[0] == 1 < span[1] else span[0], span[1])  # steps count from 1, axes from 0

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / max(1, last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(value, low), high)) / (high - low)

    drawn = _axes(low, high, span, what, x, y)
    drawn += _levels(chance or {}, low, high, what, y)
    for one in series:
        points = _from_the_edge(list(zip(one.steps, one.values, strict=True)), low, high)
        coordinates = [(f"{x(a):.1f}", f"{y(b):.1f}") for a, b in points]
        tooltip = element("title", f"{one.label}: {what.text(one.values[-1])} at step {one.steps[-1]:,}")
        line = element("polyline", tooltip, points=" ".join(map(",".join, coordinates)), stroke_dasharray=one.dashes)
        dots = [element("circle", cx=a, cy=b, r=2.5) for a, b in coordinates if len(coordinates) <= MOST_DOTS]
        drawn.append(element("g", line, *dots, class_=f"line line-{one.colour}"))
    shown = [f"{one.label} from {what.text(one.values[0])} to {what.text(one.values[-1])}" for one in series]
    shown += [f"{label} {what.text(level)}" for label, level in (chance or {}).items()]
    keys = [element("span", _swatch(one), one.label, class_=f"key data line-{one.colour}") for one in series]
    caption = element("figcaption", element("b", title), element("span", joined(*keys), class_="keys"))
    svg = element("svg", joined(*drawn), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
                  aria_label=f"{title}: {'; '.join(shown)}")  # fmt: skip
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


def _swatch(series: Series) -> Markup:
    """A short line as it is drawn."""
    line = element("line", x1=0, x2=34, y1=2, y2=2, stroke_dasharray=series.dashes)
    return element("svg", line, viewBox="0 0 34 4", class_="swatch", aria_hidden="true")


def _from_the_edge(points: list[tuple[int, float]], low: float, high: float) -> list[tuple[float, float]]:
    """A line without its start beyond the scale, from where it crosses the edge on.

    Example:
        >>> _from_the_edge([(0, 10.0), (10, 6.0), (20, 2.0), (30, 1.0)], 0.0, 4.0)
        [(15.0, 4.0), (20, 2.0), (30, 1.0)]
    """
    inside = next((n for n, (_, value) in enumerate(points) if low <= value <= high), 0)
    if inside == 0:
        return list(points)
    (before, far), (step, near) = points[inside - 1], points[inside]
    edge = high if far > high else low
    crossing = before + (step - before) * (edge - far) / (near - far)
    return [(crossing, edge), *points[inside:]]


def _title(family: str, names: Sequence[str]) -> str:
    what = logged_format(names[0])
    return f"{what.row} recall (%)" if len(names) > 1 else ", ".join(filter(None, (what.row, what.heading)))


def _axes(
    low: float,
    high: float,
    span: tuple[int, int],
    what: MetricFormat,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[Markup]:
    """Lines and numbers of both axes, all round."""
    drawn = []
    for shown in round_ticks(low * what.factor, high * what.factor):
        at = y(shown / what.factor)
        drawn.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{at:.1f}", y2=f"{at:.1f}"))
        drawn.append(element("text", f"{shown:g}", class_="tick end", x=LEFT - 6, y=f"{at + 3.5:.1f}"))
    bottom = HEIGHT - BOTTOM
    for step in round_ticks(*span, most=5, whole=True) if span[0] < span[1] else [span[0]]:
        at = x(step)
        drawn.append(element("line", class_="grid", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=bottom, y2=bottom + 4))
        drawn.append(element("text", f"{step:,.0f}", class_="tick middle", x=f"{at:.1f}", y=bottom + 15))
    drawn.append(element("text", "optimiser step", class_="middle", x=(LEFT + WIDTH - RIGHT) // 2, y=HEIGHT - 4))
    return drawn


def _levels(
    levels: Mapping[str, float], low: float, high: float, what: MetricFormat, y: Callable[[float], float]
) -> list[Markup]:
    """Dashed lines at levels; those beyond the scale are written at the edge where they lie."""
    drawn: list[Markup] = []
    beyond = {True: 0, False: 0}
    for label, level in levels.items():
        text = f"{label} {what.text(level)}"
        if low <= level <= high:
            at = f"{y(level):.1f}"
            tooltip = element("title", text)
            drawn.append(element("line", tooltip, class_="level", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
            drawn.append(element("text", text, class_="level end", x=WIDTH - RIGHT, y=f"{y(level) - 4:.1f}"))
        else:
            above = level > high
            beyond[above] += 1
            edge = TOP + 13 * beyond[above] - 4 if above else HEIGHT - BOTTOM - 13 * (beyond[above] - 1) - 4
            mark = f"{text} {'▲' if above else '▼'}"
            drawn.append(element("text", mark, class_="level end", x=WIDTH - RIGHT, y=edge))
    return drawn
