"""Writes checkpoints so that a kill or a full disk in the middle leaves the one before as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from blip2_train.distributed import gather_objects
from blip2_train.errors import TrainingError
from blip2_train.training.progress import LossProgress

UNFINISHED = ".{}.unfinished"
"""Name of a checkpoint while it is written: nothing that looks for checkpoints finds it."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes beside the place, and moves there what is complete and on disk.

    Lightning's own writer collects the whole file in memory, writes it below the system's temporary folder, and then
    copies it if that is another disk: a kill during the copy leaves a cut file under the final name.
    """

    def __init__(self) -> None:
        self.problem = ""
        """Why the last checkpoint could not be written; empty if it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; an error is kept in `problem`, as only one process writes and all must raise it."""
        path = Path(path)
        unfinished = path.with_name(UNFINISHED.format(path.name))
        self.problem = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # torch's writer turns a failed write into a RuntimeError
            cause = error if isinstance(error, OSError) else error.__context__
            reason = (cause.strerror if isinstance(cause, OSError) else None) or str(error).splitlines()[0]
            self.problem = f"checkpoint {path} cannot be written: {reason}"
            unfinished.unlink(missing_ok=True)


def write_checkpoint(trainer: lightning.Trainer, path: Path) -> None:
    """Write the state of a run; every process must call it.

    Raises:
        TrainingError: in all processes, if the file could not be written; the checkpoint before is still there.
    """
    trainer.save_checkpoint(path, weights_only=False)
    problem, path = gather_objects((getattr(trainer.strategy.checkpoint_io, "problem", ""), path))[0]
    if problem:
        raise TrainingError(
            f"{problem}; earlier checkpoints are as they were: make room or give paths.output_dir, and go on from "
            f"step {trainer.global_step} or before with resume_from={path.parent.parent}"
        )
    if isinstance(trainer.progress_bar_callback, LossProgress):
        trainer.progress_bar_callback.saved(path, trainer.global_step)
