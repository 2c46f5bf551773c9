"""Warns, in one line each, when the loss jumps and when training becomes slow."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import deque
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from blip2_train.errors import ConfigError
from blip2_train.training.module import TrainingModule

FEWEST = 10
"""Values from which on a usual value is estimated."""
SMALLEST_SPREAD = 0.02
"""Of the median: what varies less than this is not worth a warning."""

_logger = logging.getLogger(__name__)


class SpikeDetector:
    """Distinguishes a loss that jumps from one that varies as before.

    A spike is a value more than `spreads` spreads above the median of the values before it. The spread is 1.4826 times
    the median distance from the median (the standard deviation, for normal noise), so that spikes among those values
    hardly change it. A spike begins once, however many values it lasts; numbers that are not finite are left out.

    Args:
        spreads: How many.
        window: Values that the usual value is estimated from.
    """

    def __init__(self, spreads: float, window: int) -> None:
        self.spreads = spreads
        self.values: deque[float] = deque(maxlen=window)
        self.inside = False
        """Whether the last value was part of a spike."""

    def add(self, value: float) -> tuple[float, float] | None:
        """Take in a value; where a spike begins, the usual value and the spreads by which this one is above it."""
        if not math.isfinite(value):
            return None
        before, began = self.inside, None
        if len(self.values) >= FEWEST:
            usual = statistics.median(self.values)
            deviation = 1.4826 * statistics.median(abs(other - usual) for other in self.values)
            above = (value - usual) / max(deviation, SMALLEST_SPREAD * abs(usual), 1e-12)
            self.inside = above > self.spreads
            began = (usual, above) if self.inside and not before else None
        self.values.append(value)
        return began


class SlowdownDetector:
    """Detects that steps have become slow: a block of them is compared with the median of the blocks before it.

    Args:
        share: A block is slow if its speed is less than this share of the usual one.
        block: Steps; a mean over them also sees the pause that comes once in several steps.
        window: Blocks that the usual speed is estimated from.
    """

    def __init__(self, share: float, block: int, window: int) -> None:
        self.share, self.block = share, block
        self.blocks: deque[float] = deque(maxlen=window)
        """Seconds per step of each block."""
        self.inside = False
        """Whether the last block was slow."""
        self._seconds: list[float] = []

    def add(self, seconds: float) -> tuple[float, float] | None:
        """Take in the time of a step; where training becomes slow, the usual seconds per step and those of now."""
        self._seconds.append(seconds)
        if len(self._seconds) < self.block:
            return None
        now, self._seconds = statistics.fmean(self._seconds), []
        before, began = self.inside, None
        if len(self.blocks) >= FEWEST:
            usual = statistics.median(self.blocks)
            self.inside = now * self.share > usual
            began = (usual, now) if self.inside and not before else None
        self.blocks.append(now)
        return began


class ChangeWarnings(Callback):
    """Warns of loss spikes and slow training, and counts both; the run goes on.

    Losses are those that are logged, means over processes. They and both counts are kept in checkpoints, so that a run
    that goes on warns as one that was never stopped; what speed is usual is learned anew, perhaps on another machine.
    Validations and checkpoints do not count as slow steps, waiting for data does.

    Args:
        loss_spreads: Warn of a loss so many spreads above the usual one (see `SpikeDetector`).
        speed_share: Warn of a speed below this share of the usual one (see `SlowdownDetector`).
        window: Logged losses, and blocks of steps, that usual values are estimated from.
        block: Optimiser steps whose mean time is one measurement.
    """

    def __init__(self, loss_spreads: float = 6.0, speed_share: float = 0.7, window: int = 50, block: int = 20) -> None:
        if loss_spreads <= 0 or not 0 < speed_share < 1:
            raise ConfigError(
                f"callbacks.changes: loss_spreads must be above 0 and speed_share between 0 and 1, got {loss_spreads} "
                f"and {speed_share}"
            )
        if window < FEWEST or block < 1:
            raise ConfigError(
                f"callbacks.changes: window must be at least {FEWEST} and block at least 1, got {window} and {block}"
            )
        self.spikes, self.slowdowns = 0, 0
        self._loss = SpikeDetector(loss_spreads, window)
        self._speed = SlowdownDetector(speed_share, block, window)
        self._seen: dict[str, float] = {}
        self._mark: tuple[float, int] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take no time of the first step, in which everything starts."""
        self._mark = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss, if it was logged, and the speed."""
        assert isinstance(pl_module, TrainingModule)
        step, now = trainer.global_step, time.perf_counter()
        if pl_module.latest and pl_module.latest is not self._seen:
            self._seen = pl_module.latest
            self._look_at_loss(trainer, self._seen["loss"], step)
        if self._mark is not None and step > self._mark[1]:
            self._look_at_speed(trainer, now - self._mark[0], step)
        if self._mark is None or step > self._mark[1]:
            self._mark = (now, step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take no time of the step during which this happened."""
        self._mark = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Likewise."""
        self._mark = None

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints hold."""
        losses = {"losses": list(self._loss.values), "in_spike": self._loss.inside}
        return {**losses, "spikes": self.spikes, "slowdowns": self.slowdowns}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self._loss.values.clear()
        self._loss.values.extend(state_dict["losses"])
        self._loss.inside = bool(state_dict["in_spike"])
        self.spikes, self.slowdowns = int(state_dict["spikes"]), int(state_dict["slowdowns"])

    def _look_at_loss(self, trainer: lightning.Trainer, loss: float, step: int) -> None:
        if (began := self._loss.add(loss)) is None:
            return
        self.spikes += 1
        for logger in trainer.loggers:
            logger.log_metrics({"train/loss_spikes": self.spikes}, step=step)
        usual, above = began
        _warn(
            trainer,
            f"warning: loss {loss:.3f} at step {step} is {above:.1f} spreads above the usual {usual:.3f}, spike "
            f"{self.spikes} of this run; if it stays there, go on from a checkpoint before it with a lower optim.lr",
        )

    def _look_at_speed(self, trainer: lightning.Trainer, seconds: float, step: int) -> None:
        if (began := self._speed.add(seconds)) is None:
            return
        self.slowdowns += 1
        usual, now = began
        _warn(
            trainer,
            f"warning: steps until {step} took {now:.3g} s each, usually {usual:.3g} s, slowdown {self.slowdowns} of "
            "this run; check for slow storage, too few data.num_workers, or another program on this machine",
        )


def _warn(trainer: lightning.Trainer, text: str) -> None:
    if trainer.is_global_zero:
        _logger.warning("%s", text)
