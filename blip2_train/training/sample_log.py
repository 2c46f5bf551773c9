"""Writes down which samples each optimiser step was trained on; chosen by configuration, for tests and inquiries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from blip2_train.distributed import gather_objects
from blip2_train.system.atomic_write import write_atomically

SAMPLES = "samples.jsonl"


class SampleLog(Callback):
    """Appends a line `[step, [id, …]]` to `samples.jsonl` after each optimiser step.

    Ids stand in order of micro-batches, and in each in order of processes. A run that goes on drops the lines of the
    steps that it repeats. To have it: `callbacks.samples={_target_: blip2_train.training.sample_log.SampleLog,
    folder: '${paths.run_dir}'}`. The processes then exchange the ids in every step.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / SAMPLES
        self._ids: list[str] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep what was written before the step that the run goes on from."""
        if trainer.is_global_zero:
            kept = {step: ids for step, ids in read_samples(self.path).items() if step <= trainer.global_step}
            write_atomically(self.path, "".join(json.dumps([step, ids]) + "\n" for step, ids in kept.items()))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect the ids of all processes, and write them when the step is done."""
        self._ids += [name for own in gather_objects(list(batch.sample_ids)) for name in own]
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([trainer.global_step, self._ids]) + "\n")
        self._ids = []


def read_samples(path: Path) -> dict[int, list[str]]:
    """Sample ids by step; empty if there is no such file. A line cut short by a kill is left out."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return {int(step): list(ids) for step, ids in map(json.loads, lines)}
