"""What an evaluation is made of: a task that predicts batch by batch, and what it leaves.

Batches are the same whatever the number of processes, so that predictions are too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.report.content import Example

Row = dict[str, Any]
"""What is kept of one sample: plain values, written as JSON."""


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """What a task says of a model."""

    scores: Mapping[str, float | None]
    """By name, `<metric>` or `<part>/<metric>`; None where it could not be computed."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a score is None, and how to get it."""
    per_sample: Mapping[str, float] = field(default_factory=dict)
    """The score by which single samples are compared, by the sample's id as text."""


class EvaluationTask(Protocol):
    """One data set, one way of asking, one set of metrics."""

    name: str
    """As in the configuration: `coco_caption`."""
    title: str
    """As a person would say it."""
    kind: str
    """`captioning`, `vqa` or `retrieval`."""
    example_metric: str
    """What the samples' scores are of."""
    headline: str
    """The score to name first."""
    closing: tuple[str, ...]
    """The scores to print last, where those of all tasks stand together."""

    def settings(self) -> Mapping[str, Any]:
        """Plain values that decide what is predicted: the data's fingerprint, prompt, decoding."""
        ...

    def start(self, model: Blip2) -> None:
        """Make ready what all batches share; every process calls it.

        Raises:
            ConfigError: if the model cannot do the task.
        """
        ...

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def paths(self, batch: int) -> Sequence[Path]:
        """Images that `predict` needs for a batch, one for each of its samples; none if it needs no more."""
        ...

    def predict(self, model: Blip2, batch: int, pixel_values: Tensor) -> Sequence[Row]:
        """What the model says of one batch; `pixel_values` `(B, 3, H, W)` are those of `paths`."""
        ...

    def score(self, rows: Sequence[Row]) -> TaskScores:
        """Scores of the rows of all batches, each once, in the order of batches."""
        ...

    def examples(self, rows: Sequence[Row], scored: TaskScores) -> list[Example]:
        """Every sample for the page, with its score."""
        ...

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write the predictions in the form in which the set's server takes them."""
        ...


def data_fingerprint(entries: Sequence[Any]) -> str:
    """A short text that changes when any of the entries, frozen records, does."""
    return hashlib.blake2b("\n".join(map(repr, entries)).encode(), digest_size=8).hexdigest()
