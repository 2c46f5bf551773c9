"""Evaluation tasks, which predict batch by batch, and the scores of their predictions.

Batches are the same whatever the number of processes, so that predictions are too.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.report.content import Example, TaskLabels
from blip2_train.system.atomic_write import write_atomically

Row = dict[str, Any]
"""The prediction for one sample: plain values, written as JSON."""


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """The scores of a model on a task."""

    scores: Mapping[str, float | None]
    """By name, `<metric>` or `<part>/<metric>`; None where it could not be computed."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a score is None, and how to get it."""
    per_sample: Mapping[str, float] = field(default_factory=dict)
    """The score by which single samples are compared, by the sample's id as text."""


class EvaluationTask(Protocol):
    """A data set, how a model is used on it, and the metrics.

    `run_task` calls `start` once; then, if `encodes_first`, `encode` with every batch and `exchange` once; then
    `predict` with every batch; then `score` with the rows of all batches. Members with a value or a body here are
    defaults for tasks that inherit from this class.
    """

    name: str
    """As in the configuration: `coco_caption`."""
    title: str
    """For people: `COCO captions, Karpathy test`."""
    kind: str = ""
    """Key of `checkpoints` in the configuration, if the task may be about another model than `checkpoint`."""
    example_metric: str
    """Name of the metric that the scores of single samples are of."""
    headline: str
    """The score to name first."""
    closing: tuple[str, ...] = ()
    """The scores to print last, where those of all tasks stand together."""
    labels: TaskLabels = TaskLabels()
    """How its metrics, parts and references are shown."""
    encodes_first: ClassVar[bool] = False
    """Whether all images are encoded before the first prediction, which then gets no pixel values."""

    matches_words: ClassVar[bool] = False
    """Whether a prediction is a text that a model matched with the image, whose words the page can show on it."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Plain values that decide the predictions: the data's fingerprint (`data`), prompt, decoding."""
        ...

    def chance(self) -> Mapping[str, float]:
        """What a model that has learned nothing reaches, by name of the score; empty where that is not known."""
        return {}

    def start(self, model: Blip2) -> None:
        """Prepare what all batches share; every process calls it.

        Raises:
            ConfigError: if the model cannot do the task.
        """
        return

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches."""
        ...

    @abstractmethod
    def paths(self, batch: int) -> Sequence[Path]:
        """Images of a batch, one for each of its samples."""
        ...

    def encode(self, model: Blip2, batch: int, pixel_values: Tensor) -> None:
        """Keep what `exchange` and `predict` need of a batch; `pixel_values` `(B, 3, H, W)` are those of `paths`."""
        return

    def exchange(self, model: Blip2) -> None:
        """Exchange between processes what they have encoded; every process calls it."""
        return

    @abstractmethod
    def predict(self, model: Blip2, batch: int, pixel_values: Tensor) -> Sequence[Row]:
        """The model's output for one batch.

        Args:
            model: With its processor.
            batch: Index of the batch; with `encodes_first`, one that this process has encoded.
            pixel_values: `(B, 3, H, W)`, those of `paths`; with `encodes_first` empty.
        """
        ...

    @abstractmethod
    def score(self, rows: Sequence[Row]) -> TaskScores:
        """Scores of the rows of all batches, each once, in the order of batches; one process calls it."""
        ...

    @abstractmethod
    def examples(self, rows: Sequence[Row], scored: TaskScores) -> list[Example]:
        """Every sample for the page, with its score."""
        ...

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write the predictions in the form in which the set's server takes them; as a list of rows if none."""
        write_atomically(path, json.dumps(list(rows), ensure_ascii=False) + "\n")


_STORED_NAMES = {"AnnotatedImage": ("AnnotatedPicture", {}), "VisualQuestion": ("VisualQuestion", {"image": "picture"})}
"""Names of records and fields in the fingerprints that predictions on disk hold, where they differ from today's."""


def data_fingerprint(entries: Sequence[Any]) -> str:
    """A short text that changes when any of the entries, frozen records, does."""
    return hashlib.blake2b("\n".join(map(_stored_text, entries)).encode(), digest_size=8).hexdigest()


def _stored_text(entry: Any) -> str:
    if not is_dataclass(entry):
        return repr(entry)
    name = type(entry).__name__
    stored, names = _STORED_NAMES.get(name, (name, {}))
    values = (f"{names.get(field.name, field.name)}={getattr(entry, field.name)!r}" for field in fields(entry))
    return f"{stored}({', '.join(values)})"
