"""The scale of a chart: which part of an axis its curves fill, and round numbers on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

_START, _SPIKES = 0.1, 0.02
"""Share of a curve's points at its start, and of the others on each side, that need not be seen."""


def value_range(values: Sequence[float], whole: Sequence[float] = ()) -> tuple[float, float]:
    """The part of an axis that a curve fills, with a margin.

    The steep start of a curve, and single spikes, are left out where they lie further off than the rest is high.

    Args:
        values: Of a curve, in their order.
        whole: Of others, all of which are to be seen.

    Example:
        >>> low, high = value_range([100.0] * 5 + [2.0 + n / 100 for n in range(101)])
        >>> round(low, 2), round(high, 2)
        (1.94, 3.06)
    """
    finite = [value for value in values if math.isfinite(value)]
    seen = [value for value in whole if math.isfinite(value)]
    rest = sorted(finite[int(_START * len(finite)) :])
    cut = int(_SPIKES * len(rest))
    core = [*rest[cut : len(rest) - cut], *seen]
    if not core:
        return 0.0, 1.0
    span = max(core) - min(core)
    kept = [value for value in finite if min(core) - span <= value <= max(core) + span] if span else finite
    low, high = min([*core, *kept]), max([*core, *kept])
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def round_ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, evenly spread: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: Of the axis.
        high: Of the axis, more than `low`.
        most: Numbers, at most.
        whole: Whether ticks are whole numbers only.

    Example:
        >>> round_ticks(0.13, 2.9), round_ticks(0, 660, most=4)
        ([0.5, 1.0, 1.5, 2.0, 2.5], [0.0, 200.0, 400.0, 600.0])
    """
    power = math.floor(math.log10((high - low) / most))
    steps = [factor * 10.0**exponent for exponent in (power, power + 1, power + 2) for factor in (1, 2, 5)]
    for step in steps:
        if whole and step < 1:
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(number * step, 12) for number in range(first, last + 1)]
    return []
