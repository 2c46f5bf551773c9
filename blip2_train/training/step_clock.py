"""Takes the time of optimiser steps, and of the wait for their data."""

from __future__ import annotations

import statistics
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback


class StepClock(Callback):
    """Notes when each optimiser step ends and how long the device had nothing to do before it.

    It waits for the device after each step, so that a step's time is its own.

    Args:
        longest: Seconds after which training ends with a step, but for the first, which alone gives no time; None = as
            many steps as configured.
    """

    def __init__(self, longest: float | None = None) -> None:
        self.longest = longest
        self._began = 0.0
        self._ends: list[float] = []
        self._waits: list[float] = []
        self._left, self._waited = 0.0, 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin."""
        self._began = self._left = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The micro-batch is here."""
        self._waited += time.perf_counter() - self._left

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The micro-batch is trained on, and with it perhaps the step."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._left = time.perf_counter()
        if trainer.global_step > len(self._ends):
            self._ends.append(self._left)
            self._waits.append(self._waited)
            self._waited = 0.0
            if self.longest is not None and len(self._ends) > 1 and self._left - self._began > self.longest:
                trainer.should_stop = True

    def seconds_per_step(self) -> float | None:
        """The median of the steps' times without the first quarter, which is slow; None of fewer than two steps."""
        times = self._times()
        return statistics.median(times) if times else None

    def share_waiting(self) -> float:
        """Share of the time of the same steps that was spent waiting for data."""
        times = self._times()
        return sum(self._waits[-len(times) :]) / sum(times) if times else 0.0

    def _times(self) -> list[float]:
        """Seconds from the end of each step to that of the next, without the first quarter."""
        times = [end - before for before, end in zip(self._ends, self._ends[1:], strict=False)]
        return times[len(times) // 4 :]
