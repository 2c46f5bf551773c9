"""How sure a difference between two arms is: a bootstrap over seeds and test scenes.

Shape letters: S seeds, N scenes, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""0.975 quantile of Student's distribution for so many values, minus one degree of freedom."""
_NORMAL = 1.960


def _student(values: int) -> float:
    """The quantile for any number of values from 2 on; beyond the table by the first terms of its series."""
    freedom = values - 1
    return STUDENT.get(values, _NORMAL + 2.372 / freedom + 2.82 / freedom**2)


@dataclass(frozen=True)
class Interval:
    """A difference, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether it does not hold zero."""
        return self.low > 0 or self.high < 0


def difference_interval(differences: NDArray[np.float64], seed: int = 0) -> Interval | None:
    """The mean of paired differences between two arms, and its interval.

    Seeds and scenes are resampled each by themselves, and what both deviate from the mean is added. A bootstrap over a
    handful of values is far too narrow, so the deviations of seeds are stretched to the width that Student's
    distribution gives for so few: by sqrt(S / (S - 1)), as resampled values spread too little, and by the ratio of the
    quantiles.

    Args:
        differences: `(S, N)`; each column a scene, or one column if there are no values of single scenes.
        seed: Of the resampling.

    Returns:
        None for fewer than two seeds: nothing is then known of how much they matter.

    Example:
        >>> difference_interval(np.array([[1.0], [1.0], [1.0]]))
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    seeds, scenes = differences.shape
    if seeds < 2:
        return None
    generator = np.random.default_rng(seed)
    mean = float(differences.mean())
    by_seed, by_scene = differences.mean(axis=1), differences.mean(axis=0)
    stretch = np.sqrt(seeds / (seeds - 1)) * _student(seeds) / _NORMAL
    deviation = stretch * (_resampled_means(by_seed, generator) - mean)
    if scenes > 1:
        deviation += _resampled_means(by_scene, generator) - mean
    low, high = np.quantile(mean + deviation, (0.025, 0.975))
    return Interval(mean, float(low), float(high))


def _resampled_means(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """`(R,)` means of samples of values `(n,)`, drawn with replacement."""
    counts = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    result: NDArray[np.float64] = counts @ values / len(values)
    return result
