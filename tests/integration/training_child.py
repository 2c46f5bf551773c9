"""A training run in its own process, to be killed: records each step's samples, can stop itself by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.training import run


class Recorder(Callback):
    """Writes the sample ids of each optimiser step to `<folder>/samples.<rank>.jsonl`; kills the process at a step.

    Any signal but SIGKILL goes to the whole process group, from outside, as of a scheduler: readers and ranks too.
    """

    def __init__(self, folder: str, kill_at: int | None = None, kill_by: int = signal.SIGKILL) -> None:
        self.folder, self.kill_at, self.kill_by = Path(folder), kill_at, kill_by

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with (self.folder / f"samples.{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.global_step, list(batch.sample_ids)]) + "\n")
        if trainer.global_step == self.kill_at and trainer.is_global_zero:
            if self.kill_by == signal.SIGKILL:
                os.kill(os.getpid(), signal.SIGKILL)
            subprocess.run(["bash", "-c", f"kill -{int(self.kill_by)} -- -{os.getpgrp()}"], check=False)


class Interrupt(Callback):
    """Sends Ctrl-C to the whole process group, as a terminal does, once or twice, at a moment of a run.

    Args:
        moment: `setup`, `train` (inside a step), `validation`, `last_validation`, `writing` (of the export).
        times: How often; the second time after more than a second.
        by: Another signal instead.
    """

    def __init__(self, moment: str, times: int = 1, by: int = signal.SIGINT) -> None:
        self.moment, self.times, self.by = moment, times, by
        if moment == "writing":
            for name in ("write_export", "write_results", "draw_curves"):
                setattr(run, name, self._before(getattr(run, name)))

    def _before(self, act: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self._send("writing")
            return act(*arguments)

        return call

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self._send("setup" if trainer.is_global_zero else "")

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._send("train" if trainer.global_step == 4 and trainer.is_global_zero else "")

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        fitting = trainer.state.fn == "fit"
        self._send(("validation" if fitting else "last_validation") if trainer.is_global_zero else "")

    def _send(self, moment: str) -> None:
        for time_ in range(self.times if moment == self.moment else 0):
            time.sleep(1.2 if time_ else 0)
            subprocess.run(["bash", "-c", f"kill -{int(self.by)} -- -{os.getpgrp()}"], check=False)


class Fall(Callback):
    """The last process sends itself a signal after an optimiser step: by SIGKILL it dies, by SIGSTOP it hangs."""

    def __init__(self, step: int, by: int) -> None:
        self.step, self.by = step, by

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), self.by)


class KillReader(Callback):
    """Kills a reader of the last process after an optimiser step, as the system does for want of memory."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and trainer.global_rank == trainer.world_size - 1:
            os.kill(trainer.train_dataloader._iterator._workers[0].pid, signal.SIGKILL)


class Poison(Callback):
    """Puts a NaN into the last rank's images at some optimiser steps."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step + 1 in self.steps and trainer.global_rank == trainer.world_size - 1:
            batch.pixel_values[0, 0, 0, 0] = torch.nan


class PoisonFollowing(Callback):
    """Puts a NaN into a later micro-batch of an optimiser step, before its first one is trained on."""

    def __init__(self, step: int, micro_batch: int) -> None:
        self.step, self.micro_batch = step, micro_batch

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step + 1 == self.step and batch.following:
            batch.following[self.micro_batch - 1].pixel_values[0, 0, 0, 0] = torch.nan


class Spoil(Callback):
    """Makes a parameter, or only its gradient, NaN from the third optimiser step on."""

    def __init__(self, parameter: str, gradient: bool) -> None:
        self.parameter, self.gradient = parameter, gradient

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        parameter = pl_module.model.get_parameter(self.parameter)
        if trainer.global_step == 2 and self.gradient:
            parameter.register_hook(lambda gradient: gradient * torch.nan)
        elif trainer.global_step == 2:
            parameter.data.fill_(torch.nan)


class OutOfMemory(Callback):
    """Says at the third step, or in validation, what torch says when a device's memory is at its end."""

    def __init__(self, training: bool) -> None:
        self.training = training

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2:
            pl_module.model.qformer.register_forward_pre_hook(self.end)

    def end(self, qformer: torch.nn.Module, _: Any) -> None:
        if qformer.training == self.training:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which"
                " 1.20 GiB is free. Including non-PyTorch memory, this process has 22.10 GiB memory in use."
            )


def threads_of_gloo() -> list[str]:
    """Names of those that are left; see `leave_group`."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    torch.set_num_threads(1)
    status = run_command(main)
    sharded = "trainer=fsdp_cpu" in sys.argv  # torch itself keeps the group of a sharded model
    if status != 2 and not sharded:  # after a failure the other processes may be gone, and the group is not left
        assert not threads_of_gloo(), threads_of_gloo()
    sys.exit(status)
