"""Intervals of differences: as wide as Student's where the seeds alone decide, wider with scenes, and honest at two."""

import numpy as np
import pytest
from studies.intervals import STUDENT, difference_interval


def test_of_three_seeds_it_is_about_as_wide_as_students() -> None:
    values = np.array([[1.0], [2.0], [3.0]])
    interval = difference_interval(values)
    assert interval is not None and interval.mean == 2.0
    student = STUDENT[3] * values.std(ddof=1) / np.sqrt(3)
    assert interval.high - interval.mean == pytest.approx(student, rel=0.15)
    assert not interval.clear, "1, 2 and 3 do not show that there is a difference"


def test_equal_arms_are_rarely_clear_of_zero() -> None:
    generator = np.random.default_rng(0)
    drawn = [difference_interval(generator.normal(size=(3, 1)), seed) for seed in range(400)]
    share = sum(one is not None and one.clear for one in drawn) / len(drawn)
    assert share < 0.08, "5 % are promised; a plain bootstrap of three values calls a quarter clear"


def test_scenes_count_too() -> None:
    generator = np.random.default_rng(0)
    hits = generator.choice([0.0, 100.0], size=(3, 50))
    difference = hits - np.roll(hits, 1, axis=1)
    alike = np.repeat(difference[:1], 3, axis=0)
    of_scenes, without = difference_interval(alike), difference_interval(alike.mean(axis=1, keepdims=True))
    assert of_scenes is not None and without is not None
    assert without.low == without.high == pytest.approx(of_scenes.mean), "equal seeds, no scenes"
    spread = alike[0].std() / np.sqrt(50)
    assert (of_scenes.high - of_scenes.low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_one_seed_has_none() -> None:
    assert difference_interval(np.array([[1.0, 2.0]])) is None
