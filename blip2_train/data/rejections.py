"""Unusable samples: the exception, and the log that counts and lists them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from blip2_train.errors import ShardError
from blip2_train.system.records import parse_record
from blip2_train.types import RejectedSample


class UnusableSample(Exception):
    """Raised while one sample is read; the stream replaces the sample and records the reason.

    Args:
        reason: one of a few short reasons, by which samples are counted.
        detail: message of the reader.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class UnreadableShard(UnusableSample):
    """Raised if a sample's shard cannot be read here and now; other processes may well read it."""


class RejectionLog:
    """Counts rejected samples by reason, lists each in a file, and stops the run when there are too many.

    Args:
        path: JSON-lines file to which each rejected sample is appended, or None for no list. Samples that an earlier,
            interrupted run listed there are not counted again.
        max_share: largest tolerated share of failed readings, 0 … 1.
        minimum: failures below which the run is never stopped, so that one bad sample among the first ten is tolerated.
    """

    def __init__(self, path: Path | None, max_share: float = 0.05, minimum: int = 20) -> None:
        self._path = path
        self._max_share = max_share
        self._minimum = minimum
        self._known: set[tuple[str, str, str]] = set()
        self.counts: Counter[str] = Counter()
        """Distinct rejected samples by reason."""
        self._failures = 0
        self._readings = 0
        if path is not None and path.exists():
            self._read_list(path)

    def record(self, rejected: Iterable[RejectedSample], samples: int) -> None:
        """Add the samples that were rejected while `samples` good ones were read.

        A sample rejected again in a later epoch is one more failed reading, but is not counted or listed again.

        Raises:
            ShardError: if the share of failed readings exceeds the limit.
        """
        rejected = list(rejected)
        self._readings += samples + len(rejected)
        self._failures += len(rejected)
        new = [sample for sample in rejected if self._remember(sample)]
        if new and self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(sample)) + "\n" for sample in new)
        if rejected and self._failures >= self._minimum and self._failures > self._max_share * self._readings:
            listed = f"; see {self._path}" if self._path else ""
            raise ShardError(
                f"{self._failures} of {self._readings} samples read were rejected ({self.summary()}), more than the "
                f"tolerated share {self._max_share:g}{listed}. Repair the data, or raise data.max_rejected_share"
            )

    def summary(self) -> str:
        """The counts in one line, most frequent reason first: `"12 unreadable image, 3 empty caption"`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common()) or "none"

    def _read_list(self, path: Path) -> None:
        """Read the list of an earlier run, whose last line may be incomplete if the run was killed."""
        text = path.read_text(encoding="utf-8")
        for line in text.split("\n"):
            try:
                self._remember(parse_record(line, RejectedSample, path, "", ShardError))
            except ShardError:
                continue
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def _remember(self, sample: RejectedSample) -> bool:
        """Count a sample unless it was counted before; returns whether it is new."""
        identity = (sample.source, sample.key, sample.reason)
        if identity in self._known:
            return False
        self._known.add(identity)
        self.counts[sample.reason] += 1
        return True
