"""Keeps the newest checkpoints of a run, the last of its last step, or of the step that a signal stopped it at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from blip2_train.checkpoints.training_checkpoints import PERIODIC, describe_checkpoint
from blip2_train.errors import ConfigError, RunStopped
from blip2_train.training.checkpoint_files import UNFINISHED, write_checkpoint
from blip2_train.training.stop_signals import StopSignals


class RunCheckpoints(Checkpoint):
    """Writes `step_<step>.ckpt` every few optimiser steps and after the last one, and removes older ones; on SIGTERM,
    SIGUSR1 or Ctrl-C also at once.

    A step is finished first, and so is the validation that follows it, whose scores a resumed run would otherwise lack;
    a run in its last step is finished altogether. All processes stop at the same step, whichever got the signal.

    Args:
        folder: Where checkpoints lie.
        every: Optimiser steps between checkpoints.
        keep: Newest checkpoints that are kept.
    """

    def __init__(self, folder: str, every: int, keep: int = 1) -> None:
        if keep < 1:
            raise ConfigError(f"callbacks.checkpoint.keep must be at least 1, got {keep}")
        self.folder, self.every, self.keep = Path(folder), every, keep
        self._signals = StopSignals(self.folder.parent)
        self._kept: list[Path] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for signals, and remove checkpoints that a kill left half written."""
        self._signals.listen(getattr(trainer.strategy.launcher, "procs", ()))
        if trainer.is_global_zero:
            there = sorted(map(describe_checkpoint, self.folder.glob(PERIODIC)), key=lambda one: (one.saves, one.step))
            self._kept = [one.path for one in there]
            for cut in self.folder.glob(UNFINISHED.format("*.ckpt")):
                cut.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after a step, unless a validation follows it."""
        done, interval = batch_idx + 1, trainer.val_check_batch or float("inf")
        validates = trainer.enable_validation and sum(trainer.num_val_batches) > 0
        if done % trainer.accumulate_grad_batches == 0 and not (validates and done % interval == 0):
            self._after_step(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save after the step that was validated."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._after_step(trainer)

    def _after_step(self, trainer: lightning.Trainer) -> None:
        """Save if it is time.

        Raises:
            RunStopped: if a signal came.
        """
        step, signal_number = trainer.global_step, self._signals.agreed()
        stops = signal_number and step < trainer.max_steps
        if stops or step % self.every == 0 or step == trainer.max_steps:
            written = self.folder / f"step_{step:07d}.ckpt"
            write_checkpoint(trainer, written)
            self._kept = [*(path for path in self._kept if path != written), written]
            for path in self._kept[: -self.keep] if trainer.is_global_zero else []:
                path.unlink(missing_ok=True)
            self._kept = self._kept[-self.keep :]
        if stops:
            raise RunStopped(signal_number, step, first=trainer.is_global_zero)
