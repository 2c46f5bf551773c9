import pytest

from blip2_train.evaluation.report.scale import round_ticks, value_range


def test_a_scale_follows_the_curve() -> None:
    low, high = value_range([10.0, 6.0, *(2.5 - n / 1000 for n in range(300))], [2.6])
    assert low > 2.1 and 2.6 <= high < 2.8, "a steep start is left out"
    low, high = value_range([4.6, 4.2, 4.1, *(3.5 - n / 40 for n in range(60))])
    assert high > 4.6 and low < 2.0, "a start that is near is not"
    spiked = [3.0 - n / 100 for n in range(100)]
    spiked[70] = 50.0
    assert value_range(spiked)[1] < 3.2, "a single spike is left out"
    assert value_range([3.0, 3.0]) == (2.5, 3.5) and value_range([]) == (0.0, 1.0) == value_range([float("nan")])
    low, high = value_range([1.0, 9.0, 30.0])
    assert low < 1 and high > 30, "of a few points each is seen"


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (1.96, 3.04), (0, 250_000), (1e-6, 3e-6), (-3.2, 4.1), (99.2, 99.9), (0, 7)]
)
@pytest.mark.parametrize("most", [3, 5, 8])
def test_ticks_are_round_and_few(low: float, high: float, most: int) -> None:
    ticks = round_ticks(low, high, most)
    assert 1 <= len(ticks) <= most and ticks == sorted(ticks)
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    digits = {f"{tick - before:.1e}"[:3] for before, tick in zip(ticks, ticks[1:], strict=False)}
    assert digits <= {"1.0", "2.0", "5.0"}


def test_steps_are_whole_numbers() -> None:
    assert round_ticks(0, 3, most=8, whole=True) == [0, 1, 2, 3]
