"""The source of each position of a mixed stream, as a pure function of (seed, position)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.order import permutation
from blip2_train.errors import ConfigError

BLOCK = 1024
"""Positions per block: in a block the counts of the sources are exact to one sample, and their order is shuffled."""
_RESOLUTION = 2**40


class Mixture:
    """Sources interleaved in a fixed proportion, with random access.

    After each block every source has served its share of the positions, rounded. The sample count of a source
    increases without gaps, so each source is read exactly once per epoch of its own.

    Args:
        weights: one positive number per source, in any unit.
        seed: chooses the order inside blocks.

    Raises:
        ConfigError: if there is no weight, or one is not positive and finite.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        if not weights:
            raise ConfigError("a mixture needs at least one source")
        for weight in weights:
            if not (math.isfinite(weight) and weight > 0):
                raise ConfigError(f"mixing weights must be positive, got {list(weights)}; leave an unwanted source out")
        total = math.fsum(weights)
        self._weights = tuple(max(1, round(weight / total * _RESOLUTION)) for weight in weights)
        self._seed = seed
        self.shares = tuple(weight / total for weight in weights)
        """Share of the positions that each source serves."""

    def source_at(self, position: int) -> tuple[int, int]:
        """Index of the source that serves `position`, and the number of samples that it serves before."""
        if len(self._weights) == 1:
            return 0, position
        block, inside = divmod(position, BLOCK)
        sources, served_before = _block(self._weights, self._seed, block)
        return int(sources[inside]), int(served_before[inside])

    def served(self, positions: int) -> list[int]:
        """How many of the first `positions` each source serves, exactly; equally fast at every position."""
        if len(self._weights) == 1:
            return [positions]
        block, inside = divmod(positions, BLOCK)
        begun = np.bincount(_block(self._weights, self._seed, block)[0][:inside], minlength=len(self._weights))
        return [before + int(now) for before, now in zip(_served(self._weights, block * BLOCK), begun, strict=True)]


def _served(weights: tuple[int, ...], positions: int) -> list[int]:
    """Distribute the first `positions`: each source takes its rounded part of what the sources before it left.

    Each part grows by 0 or 1 when `positions` grows by 1, so no count ever falls; the last source takes the rest.
    Integers throughout: exact at every position.
    """
    counts, left, weight_left = [], positions, sum(weights)
    for weight in weights:
        counts.append((2 * left * weight + weight_left) // (2 * weight_left))
        left -= counts[-1]
        weight_left -= weight
    return counts


@lru_cache(maxsize=16)
def _block(weights: tuple[int, ...], seed: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each position of a block: the index of its source, and the samples that the source serves before."""
    before, after = _served(weights, block * BLOCK), _served(weights, (block + 1) * BLOCK)
    counts = np.array(after) - np.array(before)
    sources = np.repeat(np.arange(len(weights)), counts)[permutation(BLOCK, "mixture", seed, block)]
    served_before = np.empty(BLOCK, dtype=np.int64)
    for source, first in enumerate(before):
        positions = np.flatnonzero(sources == source)
        served_before[positions] = first + np.arange(len(positions))
    return sources, served_before
