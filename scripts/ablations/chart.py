"""Draws the results of an ablation: recall as bars, captions by step as curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablations.record import ITG, WITH, WITHOUT, Record

_BARS = ("image→text\nITC", "text→image\nITC", "image→text\nITM", "text→image\nITM")
_COLORS = {WITH: "tab:blue", WITHOUT: "tab:orange"}


def draw(record: Record, path: Path) -> Path:
    """Write the image: on the left R@1 with and without ITG, on the right CIDEr with and without stage 1.

    Bars and lines are means over the seeds; with several, each seed is a dot or a thin line.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
    _draw_recall(left, record[ITG.name])
    _draw_captions(right, record["curves"])
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _draw_recall(axis: Any, arms: Record) -> None:
    width = 0.38
    for arm, label, side in ((WITH, "ITC + ITM + ITG", -0.5), (WITHOUT, "ITC + ITM", 0.5)):
        results = [arms[arm][score] for score in ITG.scores]
        xs = [x + side * width for x in range(len(results))]
        bars = axis.bar(xs, [one["mean"] for one in results], width, label=label, color=_COLORS[arm])
        axis.bar_label(bars, fmt="%.1f", fontsize=8, label_type="center", color="white")
        for x, one in zip(xs, results, strict=True):
            if len(one["values"]) > 1:
                axis.plot([x] * len(one["values"]), list(one["values"].values()), ".", color="black", markersize=4)
    axis.set_xticks(range(len(_BARS)), _BARS, fontsize=9)
    axis.margins(y=0.25)
    axis.set(title="Stage 1 with and without ITG", ylabel="R@1, %")


def _draw_captions(axis: Any, curves: Record) -> None:
    for arm, label in ((WITH, "from stage 1"), (WITHOUT, "without stage 1")):
        results = curves[arm]["val/cider"]
        axis.plot(results["steps"], results["mean"], marker="o", markersize=4, label=label, color=_COLORS[arm])
        if len(results["values"]) > 1:
            for values in results["values"].values():
                axis.plot(results["steps"], values, linewidth=0.8, alpha=0.5, color=_COLORS[arm])
    axis.set_ylim(bottom=0)
    axis.set(title="Stage 2 with and without stage 1", xlabel="optimiser step", ylabel="CIDEr of held-out scenes")
