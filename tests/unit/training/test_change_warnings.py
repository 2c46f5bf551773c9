"""Loss spikes and slow steps in sequences made by hand."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from blip2_train.errors import ConfigError
from blip2_train.training.change_warnings import FEWEST, ChangeWarnings, SlowdownDetector, SpikeDetector
from blip2_train.training.module import TrainingModule


def spikes(values: list[float], spreads: float = 6, window: int = 50) -> list[int]:
    detector = SpikeDetector(spreads, window)
    return [index for index, value in enumerate(values) if detector.add(value) is not None]


def falling(count: int, noise: float = 0.05) -> list[float]:
    """A loss that falls from 10 to about 3, with noise."""
    draw = random.Random(0)
    return [3 + 7 * 0.97**index + draw.gauss(0, noise) for index in range(count)]


def test_a_falling_noisy_loss_is_no_spike() -> None:
    assert spikes(falling(400)) == []


def test_a_spike_is_reported_once_however_long_it_lasts_and_again_when_it_returns() -> None:
    values = falling(400)
    for index in (200, 201, 202, 300):
        values[index] += 2
    assert spikes(values) == [200, 300]


def test_earlier_spikes_hide_no_later_one() -> None:
    """A mean and a standard deviation would take the second for usual."""
    values = [3.0 + 0.01 * (index % 3) for index in range(60)]
    values[30], values[40], values[50] = 1e6, 5.0, 5.0
    assert spikes(values) == [30, 40, 50]


def test_a_level_that_stays_is_reported_once() -> None:
    assert spikes([3.0 + 0.01 * (i % 3) for i in range(60)] + [5.0 + 0.01 * (i % 3) for i in range(60)]) == [60]


def test_what_is_constant_may_vary_a_little_and_too_few_values_say_nothing() -> None:
    assert spikes([2.0] * 20 + [2.1]) == [] and spikes([2.0] * 20 + [2.5]) == [20]
    assert spikes([2.0] * (FEWEST - 1) + [9.0]) == [] and spikes([2.0] * FEWEST + [9.0]) == [FEWEST]


def test_numbers_that_are_not_finite_are_left_out() -> None:
    assert spikes([2.0] * 12 + [float("nan"), float("inf"), 2.0, 9.0]) == [15]


def test_slow_blocks() -> None:
    detector = SlowdownDetector(0.7, 4, 50)
    usual, pauses = [0.1, 0.1, 0.1, 0.3], [0.1, 0.1, 0.1, 0.8]
    times = [*usual * 12, *pauses * 2, *usual * 2, *pauses]
    assert [index for index, seconds in enumerate(times) if detector.add(seconds)] == [51, 67]
    assert [SlowdownDetector(0.7, 1, 50).add(seconds) for seconds in (0.1, 5.0)] == [None, None]


class Run:
    """A callback with what Lightning would hand it."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.callback, self.logged = ChangeWarnings(), list[tuple[int, float]]()
        if state is not None:
            self.callback.load_state_dict(state)
        self.module = TrainingModule.__new__(TrainingModule)

    def go(self, losses: list[float], first: int = 1) -> None:
        log = SimpleNamespace(log_metrics=lambda row, step: self.logged.append((step, row["train/loss_spikes"])))
        for step, loss in enumerate(losses, first):
            trainer: Any = SimpleNamespace(global_step=step, is_global_zero=True, loggers=[log])
            self.module.__dict__["latest"] = {"loss": loss}
            self.callback.on_train_batch_end(trainer, self.module, None, None, step)
            self.callback.on_train_batch_end(trainer, self.module, None, None, step)  # nothing new was logged


@pytest.mark.parametrize("stop", [25, 31, 32])
def test_a_run_that_goes_on_warns_as_one_that_was_not_stopped(stop: int, caplog: pytest.LogCaptureFixture) -> None:
    losses = falling(60, 0.01)
    losses[30], losses[31], losses[45] = 20.0, 20.0, 20.0
    whole = Run()
    whole.go(losses)
    lines = caplog.messages.copy()
    assert whole.logged == [(31, 1), (46, 2)] and len(lines) == 2
    assert "loss 20.000 at step 31" in lines[0] and "spike 2 of this run" in lines[1]
    caplog.clear()
    before = Run()
    before.go(losses[:stop])
    after = Run(before.callback.state_dict())
    after.go(losses[stop:], stop + 1)
    assert before.logged + after.logged == whole.logged and caplog.messages == lines
    assert after.callback.state_dict() == whole.callback.state_dict()


@pytest.mark.parametrize("bad", [{"loss_spreads": 0.0}, {"speed_share": 1.5}, {"window": 3}, {"block": 0}])
def test_settings_that_mean_nothing(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ChangeWarnings(**bad)
