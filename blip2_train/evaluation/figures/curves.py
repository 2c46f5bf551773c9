"""Curves of a run as an image: losses with their chance levels, ITM accuracy, temperature, recall, CIDEr, accuracy."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blip2_train.evaluation.report.logged_scores import MATCHING
from blip2_train.evaluation.report.scale import value_range
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics
from blip2_train.system.atomic_write import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
_SCORES = (
    ("cider", "CIDEr of captions (1.0 = papers' 100)"),
    ("names_right", "captions: exactly the scene's things (%)"),
    ("vqa/accuracy", "VQA accuracy (%)"),
)
_MATCHING = {f"val/{name}": metric.label.removeprefix("ITM accuracy ") for name, metric in MATCHING.items()}
_TEMPERATURE = "train/temperature"
_ACROSS = 4


def draw_curves(folder: Path, chance: dict[str, float], held_out_itc: float | None = None) -> Path | None:
    """Plot the losses, recall and scores of `metrics.csv` into `curves.png`; None without rows.

    The scale of each follows its curve. A chance level beyond it is a mark at the edge.

    Args:
        folder: The run folder.
        chance: Loss of a model that has learned nothing, by loss.
        held_out_itc: That of `loss_itc` over all held-out pairs; None = there are none.
    """
    rows = read_metrics(folder / METRICS_FILE)
    return write_atomically(folder / CURVES, curve_figure(rows, chance, held_out_itc)) if rows else None


def curve_figure(rows: list[dict[str, str]], chance: dict[str, float], held_out_itc: float | None = None) -> bytes:
    """A PNG of the curves (arguments as `draw_curves`, the rows read)."""
    file = io.BytesIO()
    draw_figure(rows, chance, held_out_itc).savefig(file, dpi=110, format="png", facecolor="white")
    return file.getvalue()


def draw_figure(rows: list[dict[str, str]], chance: dict[str, float], held_out_itc: float | None = None) -> Figure:
    """The figure of the curves (arguments as `curve_figure`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    recalls = sorted(
        {k for row in rows for k in row if "_to_" in k and row[k]}, key=lambda k: (int(k.rpartition("_r")[2]), k)
    )
    scores = [(f"val/{name}", label) for name, label in _SCORES if curve(rows, f"val/{name}")[0]]
    matching = [key for key in _MATCHING if curve(rows, key)[0]]
    temperature = bool(curve(rows, _TEMPERATURE)[0])
    panels = len(chance) + bool(matching) + temperature + bool(recalls) + len(scores)
    down = -(-panels // _ACROSS)
    across = -(-panels // down)
    width, height = 4 * across + (1.2 if recalls else 0), 3.3 * down + 0.4
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False, gridspec_kw={
        "left": 0.7 / width, "right": 1 - (1.6 if recalls else 0.3) / width, "bottom": 0.55 / height,
        "top": 1 - 0.75 / height, "wspace": 0.28, "hspace": 0.4,
    }).flat  # fmt: skip
    for axis, (name, level) in zip(axes, chance.items(), strict=False):
        _draw_loss(axis, rows, name, level, held_out_itc if name == "loss_itc" else None)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False, fontsize=8, handlelength=3
    )
    used = len(chance)
    if matching:
        for number, key in enumerate(matching):
            axes[used].plot(*curve(rows, key), "C1" + "-:"[number], marker="o", markersize=3, label=_MATCHING[key])
        axes[used].set(xlabel="optimiser step", ylim=(-3, 103))
        axes[used].set_title("held-out ITM accuracy (%)", fontsize=10)
        axes[used].legend(frameon=False, fontsize=7, handlelength=3)
        used += 1
    if temperature:
        axes[used].plot(*curve(rows, _TEMPERATURE), linewidth=1)
        axes[used].set(xlabel="optimiser step")
        axes[used].set_title("temperature of ITC", fontsize=10)
        used += 1
    for key, label in scores:
        axes[used].plot(*curve(rows, key), color="C1", marker="o", markersize=3)
        axes[used].set(xlabel="optimiser step")
        axes[used].set_title(f"held-out {label}", fontsize=10)
        used += 1
    if recalls:
        _draw_recall(axes[used], rows, recalls)
        used += 1
    for axis in axes[used:]:
        axis.axis("off")
    return figure


def _draw_loss(axis: Axes, rows: list[dict[str, str]], name: str, level: float, held_out: float | None) -> None:
    trained, validated = curve(rows, f"train/{name}"), curve(rows, f"val/{name}")
    axis.plot(*trained, label="train", linewidth=1)
    axis.plot(*validated, label="held-out", marker="o", markersize=3)
    axis.set_ylim(*value_range(trained[1], validated[1]))
    if trained[1] and trained[1][0] > axis.get_ylim()[1]:
        axis.annotate(f"▲ starts at {trained[1][0]:.2f}", (0.12, 0.98), xycoords="axes fraction", va="top", fontsize=8,
                      color="C0")  # fmt: skip
    mark_level(axis, level, "chance", "grey")
    if held_out is not None:
        mark_level(axis, held_out, "chance, held-out", "tab:orange")
    axis.set_title(name.removeprefix("loss_").upper(), fontsize=10)
    axis.set(xlabel="optimiser step", ylabel="nats")


def mark_level(axis: Axes, level: float, label: str, colour: str) -> None:
    """A dashed line at a level; beyond the scale an arrow at the edge on its side, with the level beside it."""
    low, high = axis.get_ylim()
    if low <= level <= high:
        axis.axhline(level, color=colour, linestyle="--", linewidth=1, label=label)
        return
    above = level > high
    taken = sum(text.get_gid() == str(above) for text in axis.texts)
    axis.annotate(
        f"{'▲' if above else '▼'} {label} {level:.2f}",
        (0.98, 0.98 if above else 0.02),
        xycoords="axes fraction",
        xytext=(0, (-11 if above else 11) * taken),
        textcoords="offset points",
        ha="right",
        va="top" if above else "bottom",
        fontsize=8,
        color=colour,
        gid=str(above),
    )


def _draw_recall(axis: Axes, rows: list[dict[str, str]], recalls: Sequence[str]) -> None:
    for index, key in enumerate(recalls):
        style = f"C{index // 2}-" if "text_to_image" in key else f"C{index // 2}--"
        label = key.removeprefix("val/").replace("_to_", "→").replace("_r", " R@")
        axis.plot(*curve(rows, key), style, marker="o", markersize=3, label=label)
    axis.set_title("held-out retrieval", fontsize=10)
    axis.set(xlabel="optimiser step", ylabel="recall, %", ylim=(0, 103))
    pairs = curve(rows, "val/pairs")[1]
    if pairs:
        mark_level(axis, 100 / pairs[-1], "chance R@1", "grey")
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), reverse=True, handlelength=3.5)
