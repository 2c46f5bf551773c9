"""Which samples are kept for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.stream.order import permutation, stable_seed


def choose_held_out(sizes: Sequence[int], count: int) -> list[NDArray[np.int64]]:
    """Numbers of the samples to hold out of sources with `sizes` samples, at most a tenth of all.

    The choice depends on the sizes alone, so runs with other seeds are validated on the same samples.

    Returns:
        For each source, the sorted numbers.
    """
    total = sum(sizes)
    count = min(count, total // 10)
    chosen: set[int] = set()
    draw = 0
    while len(chosen) < count:
        chosen.add(stable_seed("held out", total, draw) % total)
        draw += 1
    numbers = np.sort(np.fromiter(chosen, dtype=np.int64, count=count))
    starts = np.cumsum([0, *sizes])
    return [numbers[(numbers >= a) & (numbers < b)] - a for a, b in zip(starts[:-1], starts[1:], strict=True)]


def validation_problem(samples: int, processes: int) -> str | None:
    """Why `samples` are too few for `processes` that validate together; None if they are enough."""
    if samples == 0:
        return (
            "validation is asked for, but there is nothing to validate on: give data.validation, or data.holdout and "
            f"at least {10 * processes} samples (it takes at most a tenth of all), or pass validate_every=null"
        )
    if samples < processes:
        return (
            f"{samples} validation samples cannot be shared by {processes} processes: give data.validation, raise "
            "data.holdout (it takes at most a tenth of all samples), train in fewer processes, or pass "
            "validate_every=null"
        )
    return None


def evenly_chosen(size: int, count: int | None) -> NDArray[np.int64]:
    """At most `count` of `size` samples, in order: all if None, else a choice that depends on the two numbers alone."""
    if count is None or count >= size:
        return np.arange(size)
    return np.sort(permutation(size, "evaluation", count)[:count])
