"""The content of a report: scores, the settings behind them, and examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from blip2_train.evaluation.metrics.metric_format import MetricFormat, by_name, part_label


def weights_name(location: object, kind: str) -> str:
    """How results name weights: by path or hub id, and what they were found to be."""
    return f"{location} [{kind}]"


def weights_location(name: str) -> str:
    """Path or hub id of a name by `weights_name`; of any other the whole name.

    Example:
        >>> weights_location(weights_name("outputs/demo/export", "blip2_train export (stage1)"))
        'outputs/demo/export'
    """
    return name.rpartition(" [")[0] or name


@dataclass(frozen=True, kw_only=True)
class AttentionView:
    """One view of the attention of the queries, see `attention_views`."""

    label: str
    """`mean of queries`, `query 3`, …"""
    heat: Tensor
    """`(h, w)`, 0 or more: attention to each patch."""


@dataclass(frozen=True, kw_only=True)
class WordView:
    """A word of a prediction, and which part of the image it is about."""

    word: str
    heat: Tensor | None
    """`(h, w)`, 0 or more, see `word_maps`; None = it has no map."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image with what the model made of it."""

    id: str
    """Of the image, or of the question."""
    image: bytes | Path
    """A JPEG, PNG, WebP, GIF or BMP file, or its path; it is read only if the example is shown."""
    prediction: str
    """A caption or an answer; for retrieval the text that came first."""
    references: Sequence[str]
    """Captions or answers of people."""
    question: str = ""
    score: float | None = None
    """On the scale of the task's `example_metric`; None = the example has none of its own."""
    domain: str = ""
    """The part of the set it belongs to: `in-domain`, a type of question, …"""
    attention: Sequence[AttentionView] = ()
    words: Sequence[WordView] = ()
    """All words of the prediction, if there are maps of them."""


@dataclass(frozen=True, kw_only=True)
class TaskLabels:
    """How tables and pages show a task; each task brings its own."""

    metrics: Mapping[str, MetricFormat] = field(default_factory=dict)
    """By name of the metric, without the part of the set in front; others are shown by their name."""
    part: str = "part"
    """Heading above the parts of the set."""
    prediction: str = ""
    """Heading above the prediction of an example, where it needs one: the direction of retrieval."""
    references: str = "references"
    """Heading above the references of an example."""
    count_equal_references: bool = False
    """Whether equal references are shown once, with their number: of ten people's answers few differ."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How the scores of a task came about."""

    checkpoint: str
    """Origin of the weights."""
    checkpoint_fingerprint: str
    """SHA-256 of the weights, or the hash by which their source names them."""
    data_fingerprints: Mapping[str, str]
    """By file or source of the evaluated data."""
    prompt: str = ""
    """Beginning of the texts, or the form of a question."""
    decoding: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Fields of `GenerationOptions`, or of the ranking."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the programs, see `program_versions`."""


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One evaluation task, scored."""

    name: str
    """As in the configuration: `coco_caption`."""
    title: str
    """For people: `COCO captions, Karpathy test`."""
    kind: str
    """Which model it is about, see `EvaluationTask`."""
    scores: Mapping[str, float | None]
    """By `<metric>` or `<part>/<metric>` (`out-domain/cider`), on the scale of the scorers: caption metrics 1.0 = the
    papers' 100; accuracy and recall in percent. None = could not be computed."""
    settings: TaskSettings
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a score is None, by its name or by the metric's alone."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a model that has learned nothing reaches, by the names of `scores`, where that is known."""
    examples: Sequence[Example] = ()
    example_metric: str = ""
    """Name of the metric that the examples' scores are of: `cider`, `accuracy`, `rank`."""
    labels: TaskLabels = field(default_factory=TaskLabels)
    headline: str = ""
    """The score to name first; empty = the first of `scores`."""

    def __post_init__(self) -> None:
        for name, value in self.scores.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{self.name}: {name} is {value}; give None, and the reason")
            if value is None and not self.reason(name):
                raise ValueError(f"{self.name}: {name} is None, but no reason is given")
        if self.headline and self.headline not in self.scores:
            raise ValueError(f"{self.name}: there is no score {self.headline} to name first")

    def format(self, name: str) -> MetricFormat:
        """How a score, or a metric, of this name is shown."""
        metric = name.rpartition("/")[2]
        return self.labels.metrics.get(metric) or by_name(metric)

    def part(self, name: str) -> str:
        """Part of the set that a score is of, in front of its metric's name; empty for the whole."""
        return ", ".join(filter(None, (part_label(name.rpartition("/")[0]), self.format(name).row)))

    def reason(self, name: str) -> str:
        """Why a score is None; an empty string if no reason is given."""
        return self.reasons.get(name) or self.reasons.get(name.rpartition("/")[2], "")

    @property
    def first_score(self) -> str:
        """Name of the score to name first; an empty string if there is none."""
        return self.headline or next(iter(self.scores), "")
