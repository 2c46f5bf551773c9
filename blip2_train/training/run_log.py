"""The run folder: metrics as CSV that survive a resume, curves as an image, results as flat JSON."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from blip2_train.evaluation.run_metrics import METRICS_FILE, RESULTS, curve, read_metrics
from blip2_train.system.atomic_write import write_atomically, write_checked

CURVES = "curves.png"


class RunCSVLogger(Logger):
    """Writes `metrics.csv` into the run folder, one row per logged step, each on disk at once.

    Lightning's own CSV logger deletes the rows of an earlier run when it opens a folder; this one goes on with them.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._path = Path(folder) / METRICS_FILE
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Of the run folder."""
        return self._path.parent.name

    @property
    def version(self) -> str:
        """None: the run folder is the version."""
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: the run folder holds the whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row."""
        row = {"step": step, **metrics}
        if not set(row) <= set(self._columns):
            self._columns = ["step", *sorted({*self._columns, *row} - {"step"})]
            self._rewrite(read_metrics(self._path))
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def keep_until(self, step: int) -> None:
        """Go on with the rows that an interrupted run wrote up to `step`; later ones will be written again.

        With step 0 none stays: a run that was killed before its first checkpoint begins anew in the same folder.
        """
        rows = [row for row in read_metrics(self._path) if int(row["step"]) <= step]
        self._columns = list(rows[0]) if rows else []
        if self._columns:
            self._rewrite(rows)
        else:
            self._path.unlink(missing_ok=True)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        unfinished.replace(self._path)


def draw_curves(folder: Path, chance: dict[str, float], held_out_itc: float | None = None) -> Path | None:
    """Plot the losses with their chance levels, and recall, from `metrics.csv` into `curves.png`; None without rows.

    Args:
        folder: The run folder.
        chance: Loss of a model that has learned nothing, by loss.
        held_out_itc: That of `loss_itc` over all held-out pairs; None = there are none.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_metrics(folder / METRICS_FILE)
    if not rows:
        return None
    recalls = sorted(
        {k for row in rows for k in row if "_to_" in k and row[k]}, key=lambda k: (int(k.rpartition("_r")[2]), k)
    )
    width, height = 4 * (len(chance) + 1), 3.5
    # Margins are given, as measuring every text for them takes as long as drawing.
    margins = {"left": 0.7 / width, "right": 1 - (1.6 if recalls else 0.2) / width}
    margins |= {"bottom": 0.5 / height, "top": 1 - 0.6 / height, "wspace": 0.28}
    figure, axes = pyplot.subplots(
        1, len(chance) + bool(recalls), figsize=(width, height), squeeze=False, gridspec_kw=margins
    )
    for axis, (name, level) in zip(axes[0], chance.items(), strict=False):
        axis.plot(*curve(rows, f"train/{name}"), label="train", linewidth=1)
        axis.plot(*curve(rows, f"val/{name}"), label="held-out", marker="o", markersize=3)
        axis.axhline(level, color="grey", linestyle="--", linewidth=1, label="chance")
        if name == "loss_itc" and held_out_itc is not None:
            axis.axhline(held_out_itc, color="tab:orange", linestyle="--", linewidth=1, label="chance, held-out")
        axis.set_title(name.removeprefix("loss_").upper(), y=1.0)
        axis.set(xlabel="optimiser step", ylabel="nats")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False, fontsize=8)
    if recalls:
        for index, key in enumerate(recalls):
            style = f"C{index // 2}-" if "text_to_image" in key else f"C{index // 2}--"
            label = key.removeprefix("val/").replace("_to_", "→").replace("_r", " R@")
            axes[0][-1].plot(*curve(rows, key), style, marker="o", markersize=3, label=label)
        axes[0][-1].set_title("held-out retrieval", y=1.0)
        axes[0][-1].set(xlabel="optimiser step", ylabel="recall, %", ylim=(0, 100))
        axes[0][-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    image = io.BytesIO()
    figure.savefig(image, dpi=110)
    pyplot.close(figure)
    return write_atomically(folder / CURVES, image.getvalue())


def write_results(folder: Path, results: dict[str, float]) -> Path:
    """Write `results.json`: metric name to number, flat; its checksum is a number too (`crc32`)."""
    return write_checked(folder / RESULTS, results, indent=2)
