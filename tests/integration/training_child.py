"""A training run in its own process, to be killed: records each step's samples, can stop itself by SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train import main


class Recorder(Callback):
    """Writes the sample ids of each optimiser step to `<folder>/samples.<rank>.jsonl`; kills the process at a step."""

    def __init__(self, folder: str, kill_at: int | None = None) -> None:
        self.folder, self.kill_at = Path(folder), kill_at

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with (self.folder / f"samples.{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.global_step, list(batch.sample_ids)]) + "\n")
        if trainer.global_step == self.kill_at and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run_command(main))
