"""How a metric is shown: its label, unit, number of digits, and the scale on which papers print it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MetricFormat:
    """How a metric is shown."""

    label: str
    unit: str = ""
    """`%`, `nats`, or nothing."""
    factor: float = 1.0
    """From the metric's own scale to the one that is shown."""
    digits: int | None = None
    """After the point; None = four significant digits."""
    papers_factor: float | None = None
    """From the metric's own scale to the papers', where that is another than the one shown."""
    lower_is_better: bool = False
    row: str = ""
    """Part of the set that the metric is of, where its name states it: `image→text`; equal labels share a column."""

    def text(self, value: float) -> str:
        """A value on the metric's own scale, as it is shown."""
        shown = value * self.factor
        return f"{shown:.4g}" if self.digits is None else f"{shown:,.{self.digits}f}"

    def in_papers(self, value: float) -> str:
        """The value as papers print it; an empty string if that is `text`."""
        return "" if self.papers_factor is None else f"{value * self.papers_factor:.1f}"

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def percent(label: str, *, factor: float = 1.0, row: str = "") -> MetricFormat:
    """A share in percent with one digit.

    Args:
        label: Of the metric.
        factor: 1 if the metric is computed in percent, 100 if it is a fraction of 1.
        row: See `MetricFormat`.

    Example:
        >>> percent("BLEU-4", factor=100).text(0.3819), percent("accuracy").heading
        ('38.2', 'accuracy (%)')
    """
    return MetricFormat(label=label, unit="%", factor=factor, digits=1, row=row)


def by_name(name: str) -> MetricFormat:
    """A metric that nobody has described: its own name, and four significant digits.

    Example:
        >>> by_name("my_metric").label, by_name("my_metric").text(0.000123456)
        ('my metric', '0.0001235')
    """
    return MetricFormat(label=name.replace("_", " "))


def part_label(part: str) -> str:
    """How the part of a set, or the ranking, is shown that a score's name begins with (`in-domain/cider`).

    Example:
        >>> part_label("itc"), part_label("in-domain")
        ('ITC alone', 'in-domain')
    """
    return "ITC alone" if part == "itc" else part
