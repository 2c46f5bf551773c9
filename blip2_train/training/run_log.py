"""The run folder: metrics as CSV that survive a resume, results as flat JSON."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from blip2_train.evaluation.run_metrics import METRICS_FILE, RESULTS, read_metrics
from blip2_train.system.atomic_write import write_checked


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


def write_results(folder: Path, results: dict[str, float]) -> Path:
    """Write `results.json`: metric name to number, flat; its checksum is a number too (`crc32`)."""
    return write_checked(folder / RESULTS, results, indent=2)
