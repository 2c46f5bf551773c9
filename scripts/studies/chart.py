"""Draws the results of a study: differences with their intervals, and curves of training."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

from studies.record import Record

_COLORS, _STYLES = 10, ("-", "--", ":")
"""Lines beyond ten are broken ones, in the same colours."""
_KEY = (
    ("dot", "mean of the seeds"),
    ("tick", "a seed"),
    ("bar", "95 % interval of the difference from the first row, drawn around the mean (percentages end at 0 and 100)"),
    ("dotted", "mean of the first row"),
    ("green", "clearly better"),
    ("red", "clearly worse"),
    ("grey", "not clear, or one seed"),
)


def draw(record: Record, path: Path) -> Path:
    """Write the image: above, a panel for each score with a dot per seed; below, a panel for each curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scores = record["scores"]
    curves = [key for key, score in scores.items() if score["curve"]]
    arms = list(record["arms"].values())
    shown = min(len([arm for arm in arms if arm["curve"]]), _COLORS * len(_STYLES))
    heights = [0.34 * len(arms) + 1.7, *([max(3.6, 0.22 * shown + 0.6)] if curves else [])]
    figure = pyplot.figure(figsize=(11, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for number, axis in enumerate(parts[0].subplots(1, len(scores), sharey=True, squeeze=False)[0]):
        _draw_score(axis, list(scores)[number], record)
    meanings = [*_KEY, *([("thin line below", "a seed")] if curves else [])]
    key = "; ".join(f"{mark}: {meaning}" for mark, meaning in meanings)
    parts[0].supxlabel(textwrap.fill(key, 150), fontsize=8, color="dimgrey")
    if curves:
        axes = parts[1].subplots(1, len(curves), squeeze=False)[0]
        for axis, key in zip(axes, curves, strict=True):
            _draw_curve(axis, key, record)
        parts[1].legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _draw_score(axis: Any, key: str, record: Record) -> None:
    """Each arm's mean, the interval of its difference around it, and its seeds; a line at the baseline's mean."""
    arms = list(record["arms"].values())
    baseline = arms[0]["scores"][key]["mean"]
    for row, arm in enumerate(arms):
        result = arm["scores"][key]
        if result["mean"] is None:
            continue
        color = "tab:gray"
        if "interval" in result and baseline is not None:
            better = (result["difference"] > 0) == (record["scores"][key]["better"] == "higher")
            color = ("tab:green" if better else "tab:red") if result["clear"] else "tab:gray"
            ends = [baseline + end for end in result["interval"]]
            if record["scores"][key]["label"].endswith("(%)"):
                ends = [min(max(end, 0), 100) for end in ends]
            axis.plot(ends, [row, row], color=color, linewidth=2)
        axis.plot(list(result["values"].values()), [row] * len(result["values"]), "|", color="black", markersize=6)
        axis.plot(result["mean"], row, "o", color=color)
    if baseline is not None:
        axis.axvline(baseline, color="black", linewidth=0.6, linestyle=":")
    axis.set_title(textwrap.fill(record["scores"][key]["label"], 14), fontsize=9)
    axis.set_yticks(range(len(arms)), [arm["label"] for arm in arms], fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_ylim(len(arms) - 0.5, -0.5)


def _draw_curve(axis: Any, key: str, record: Record) -> None:
    from matplotlib import pyplot

    arms = [arm for arm in record["arms"].values() if arm["curve"] and arm["curves"][key]["steps"]]
    for arm, (style, color) in zip(arms, itertools.product(_STYLES, range(_COLORS)), strict=False):
        course, line = arm["curves"][key], {"color": pyplot.get_cmap("tab10")(color), "linestyle": style}
        axis.plot(course["steps"], course["mean"], label=arm["label"], linewidth=1.6, **line)
        for values in course["values"].values():
            axis.plot(course["steps"], values, linewidth=0.5, alpha=0.5, **line)
    axis.set_title(record["scores"][key]["label"], fontsize=9)
    axis.set_xlabel("optimiser step", fontsize=8)
    axis.tick_params(labelsize=8)
