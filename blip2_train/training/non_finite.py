"""Skips optimiser steps whose loss or gradient is not finite, and writes down where that began."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from blip2_train.distributed import gather_objects, true_in_any_process
from blip2_train.errors import ConfigError, TrainingError
from blip2_train.system.atomic_write import write_atomically
from blip2_train.training.module import TrainingModule
from blip2_train.training.non_finite_search import KINDS, Finding, first_non_finite
from blip2_train.types import Batch

RECORD = "non_finite.jsonl"


class SkipNonFinite(Callback):
    """Leaves out an optimiser step if its loss or gradient is not finite in any process, and stops after several.

    Nothing but the update is left out: the step counts, and schedule and order of samples go on. The check waits for
    the device once per step. Only when it fails, the step's micro-batches run again, to name the first module whose
    output, or on the way back whose gradient, is not finite: a line of `non_finite.jsonl` with the ids of the samples.
    With `16-mixed` gradients are left to the loss scaling, which skips steps by itself until its scale fits.

    Args:
        folder: The run folder.
        stop_after: Skipped steps in a row after which the run ends.
    """

    def __init__(self, folder: str, stop_after: int = 5) -> None:
        if stop_after < 1:
            raise ConfigError(f"callbacks.non_finite.stop_after must be at least 1, got {stop_after}")
        self.path, self.stop_after = Path(folder) / RECORD, stop_after
        self.skipped, self.in_a_row = 0, 0
        self._batches: list[Batch] = []
        self._losses: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Drop what an interrupted run wrote of steps that are repeated now."""
        if trainer.is_global_zero and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what a kill cut short has no end
            kept = [line for line in lines if json.loads(line)["step"] <= trainer.global_step]
            write_atomically(self.path, "".join(f"{line}\n" for line in kept))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the micro-batches of a step."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._batches, self._losses = [], []
        self._batches.append(batch)

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Keep the losses of a step."""
        self._losses.append(loss.detach().float())

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Let a good step through; take the gradients of another away, with which AdamW does nothing.

        Raises:
            TrainingError: after too many of these in a row.
        """
        assert isinstance(pl_module, TrainingModule)
        numbers = self._losses if trainer.precision == "16-mixed" else [*self._losses, gradient_norm(pl_module)]
        if not true_in_any_process(~torch.stack(numbers).isfinite().all()):
            self.in_a_row, self._batches = 0, []
            return
        step = pl_module.global_step + 1
        finding = self._search(pl_module)
        optimizer.zero_grad(set_to_none=True)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if trainer.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **finding}) + "\n")
        for logger in trainer.loggers:
            logger.log_metrics({"train/skipped_steps": self.skipped}, step=step)
        if self.in_a_row >= self.stop_after:
            raise TrainingError(
                f"loss or gradient was not finite in {self.in_a_row} steps in a row, until step {step}; it begins with "
                f"{finding['what']} {finding['where']}, see {self.path}: lower optim.lr, give optim.clip_norm, take "
                "trainer.precision=32-true, or leave out the samples named there"
            )

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints hold."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def _search(self, module: TrainingModule) -> dict[str, Any]:
        """Where it began, in whichever process and micro-batch, and the samples of that micro-batch."""
        earliest: tuple[Finding, Sequence[str]] = (Finding(), ())
        for index, batch in enumerate(self._batches):
            findings = gather_objects((first_non_finite(module, batch, index), batch.sample_ids))
            earliest = min((earliest, *findings), key=lambda pair: KINDS.index(pair[0].what))
            if earliest[0].what != Finding.what and not module.contrasts_whole_steps:
                break  # contrast spreads what is not finite to all micro-batches, so that all have to be looked at
        finding, ids = earliest
        if finding.what != Finding.what:
            return {"what": finding.what, "where": finding.where, "sample_ids": list(ids)}
        every = gather_objects([name for batch in self._batches for name in batch.sample_ids])
        return {"what": Finding.what, "where": Finding.where, "sample_ids": [name for own in every for name in own]}


def gradient_norm(module: nn.Module) -> Tensor:
    """Norm of this process's gradients, or of its share of them; not finite if any of them is not."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    return nn.utils.get_total_norm(own).float()
