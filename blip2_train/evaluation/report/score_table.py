"""Scores as people read them: named, in the units of the papers, one row for each part of the set."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blip2_train.evaluation.report.content import TaskReport

_FRACTIONS = {
    **{f"bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)},
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "spice": "SPICE",
}
_DIRECTIONS = {"image_to_text": "image→text", "text_to_image": "text→image"}
_KEY = re.compile(rf"(?:(?P<part>.+)/)?(?:(?P<direction>{'|'.join(_DIRECTIONS)})_)?(?P<metric>.+)", re.DOTALL)
_RECALL = re.compile(r"r(\d+)")
_SHORT = ("itc", "itm", "itg", "lm")
COUNTS = ("images", "pictures", "captions", "questions", "texts", "pairs")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is written."""

    label: str
    unit: str = ""
    """`%`, `nats`, or nothing."""
    factor: float = 1.0
    """From the scorer's scale to the one that is shown."""
    digits: int | None = None
    """After the point; None = four that count."""
    papers_factor: float | None = None
    """From the scorer's scale to the papers', where that is another than the one shown."""
    lower_is_better: bool = False

    def text(self, value: float) -> str:
        """A value on the scorer's scale, as it is shown."""
        shown = value * self.factor
        return f"{shown:.4g}" if self.digits is None else f"{shown:,.{self.digits}f}"

    def in_papers(self, value: float) -> str:
        """The value as papers print it; an empty string if that is `text`."""
        return "" if self.papers_factor is None else f"{value * self.papers_factor:.1f}"

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def metric(name: str) -> Metric:
    """How the metric called `name` is written; an unknown one keeps its name, and gets four digits that count.

    Example:
        >>> metric("cider").text(1.2144), metric("cider").in_papers(1.2144), metric("bleu_4").text(0.3819)
        ('1.214', '121.4', '38.2')
    """
    if name == "cider":
        return Metric(label="CIDEr", digits=3, papers_factor=100.0)
    if name in _FRACTIONS:
        return Metric(label=_FRACTIONS[name], unit="%", factor=100.0, digits=1)
    if recall := _RECALL.fullmatch(name):
        return Metric(label=f"R@{recall[1]}", unit="%", digits=1)
    words = " ".join(word.upper() if word in _SHORT else word for word in name.split("_"))
    if "accuracy" in name or name in ("names_right", "recall_mean"):
        return Metric(label=words, unit="%", digits=1)
    if name.startswith("loss"):
        return Metric(
            label=f"{words.removeprefix('loss').strip()} loss".strip(), unit="nats", digits=3, lower_is_better=True
        )
    if name == "rank":
        return Metric(label="rank", digits=0, lower_is_better=True)
    return Metric(label=words, digits=0 if name in COUNTS else None)


def parse(key: str) -> tuple[str, str]:
    """Part of the set and name of the metric that a score is of; the part is empty for the whole.

    Example:
        >>> parse("out-domain/cider"), parse("itm/image_to_text_r1"), parse("answer type yes/no/accuracy")
        (('out-domain', 'cider'), ('itm, image→text', 'r1'), ('answer type yes/no', 'accuracy'))
    """
    found = _KEY.fullmatch(key)
    if found is None:
        return "", key
    parts = [found["part"], _DIRECTIONS.get(found["direction"] or "")]
    return ", ".join(part for part in parts if part), found["metric"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score."""

    text: str
    """As it is shown; empty = there is no such score, `—` = it could not be computed."""
    in_papers: str = ""
    """On the papers' scale, if that is another."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of a task."""

    columns: tuple[Metric, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """Name of the part, and a cell for each column."""
    missing: tuple[tuple[str, str], ...]
    """What could not be computed, and why."""


def score_table(task: TaskReport) -> ScoreTable:
    """Rows and columns of a task's scores, in the order in which they come; the whole set is called `all`."""
    parsed = {key: parse(key) for key in task.scores}
    names = list(dict.fromkeys(name for _, name in parsed.values()))
    value_of = {parsed[key]: value for key, value in task.scores.items()}

    def cell(part: str, name: str) -> Cell:
        value = value_of.get((part, name))
        if value is None:
            return Cell(text="—" if (part, name) in value_of else "")
        return Cell(text=metric(name).text(value), in_papers=metric(name).in_papers(value))

    parts = list(dict.fromkeys(part for part, _ in parsed.values()))
    missing: dict[str, str] = {}
    for key, (part, name) in parsed.items():
        if task.scores[key] is None:
            alone = name in task.reasons and key not in task.reasons  # one reason for all parts
            missing[metric(name).label + (f", {part}" if part and not alone else "")] = task.reason(key)
    return ScoreTable(
        columns=tuple(metric(name) for name in names),
        rows=tuple((part or "all", tuple(cell(part, name) for name in names)) for part in parts),
        missing=tuple(missing.items()),
    )
