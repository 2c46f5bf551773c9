"""Watches what a run writes, to kill it at a moment, and records where it was."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from blip2_train.checkpoints.training_checkpoints import CHECKPOINTS
from blip2_train.training.checkpoint_files import UNFINISHED
from blip2_train.training.sample_log import SAMPLES, read_samples
from kill_test.launch import LaunchedRun
from kill_test.moments import Moment

_GLANCE = 0.001
"""Seconds between looks at a run."""
_LOOK_EVERY = 0.5
"""Seconds between looks for new processes."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What a kill met."""

    moment: Moment
    processes: int
    step: int
    """Last step that was trained before it, in this life of the run or an earlier one."""
    checkpoint: int
    """Step of the newest checkpoint that was left; 0 = none."""
    cut: bool
    """Whether a checkpoint was left half written."""

    def row(self) -> tuple[object, ...]:
        """What stands in the table, below `COLUMNS`."""
        return self.moment.kind, self.processes, self.step, "yes" if self.cut else "", self.checkpoint


COLUMNS = ("moment", "processes", "trained until", "checkpoint cut", "goes on from")


@dataclass(frozen=True, kw_only=True)
class CommandKill:
    """What a kill of another command met."""

    command: str
    moment: str
    seconds: float
    """After the start."""
    unfinished: int
    """Files that were left under names of unfinished files."""
    whole: int
    """Files that were left under their final names."""

    def row(self) -> tuple[object, ...]:
        """What stands in the table, below `COMMAND_COLUMNS`."""
        return self.command, self.moment, f"{self.seconds:.1f}", self.unfinished, self.whole


COMMAND_COLUMNS = ("command", "moment", "after s", "unfinished files", "whole files")


class RunWatch:
    """One life of a run, seen through the files that it writes.

    Args:
        folder: The run folder.
        every: Optimiser steps between checkpoints.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self._samples = folder / SAMPLES
        self._before = self._identity()
        self._cut_before = self._cut()
        self._came_from = newest_checkpoint(folder)

    def kill_at(self, run: LaunchedRun, moment: Moment, processes: int) -> Kill | None:
        """Wait for the moment and kill the run of so many processes; None if it ended by itself first."""
        reached = self._wait_for_start(run, moment) if moment.kind == "start" else self._wait_for_step(run, moment)
        if not reached:
            return None
        run.kill()
        return Kill(
            moment=moment,
            processes=processes,
            step=max(read_samples(self._samples), default=0),
            checkpoint=newest_checkpoint(self.folder),
            cut=bool(self._cut() - self._cut_before),
        )

    def _wait_for_start(self, run: LaunchedRun, moment: Moment) -> bool:
        while time.monotonic() < run.started + moment.wait:
            time.sleep(_GLANCE)
            if run.status is not None:
                return False
        return True

    def _wait_for_step(self, run: LaunchedRun, moment: Moment) -> bool:
        """Wait until the step is trained in this life, then for the share of the next one, or for the checkpoint."""
        target = max(moment.step, self._came_from + 1)
        if moment.kind == "checkpoint":
            target = max(moment.step, (self._came_from // self.every + 1) * self.every) - 1
        if not (seconds := self._wait_until_trained(run, target)):
            return False
        if moment.kind != "checkpoint":
            time.sleep(moment.wait * seconds)
            return run.status is None
        name = f"step_{target + 1:07d}.ckpt"
        whole = self.folder / CHECKPOINTS / name
        unfinished = whole.with_name(UNFINISHED.format(name))
        while not (unfinished.exists() or whole.exists()):
            if run.status is not None:
                return False
            time.sleep(_GLANCE / 5)
        return True

    def _wait_until_trained(self, run: LaunchedRun, target: int) -> float:
        """Wait until a step is trained in this life; seconds that the step before it took, 0 if the run ended."""
        looked, known, changed, seconds = 0.0, 0, time.monotonic(), 0.0
        while (step := self._step_of_this_life()) < target:
            now = time.monotonic()
            if step != known:
                known, seconds, changed = step, now - changed, now
            if now > looked + _LOOK_EVERY:
                run.look()
                looked = now
            if run.status is not None:
                return 0.0
            time.sleep(_GLANCE)
        return min(max(seconds, _GLANCE), 1.0)

    def _step_of_this_life(self) -> int:
        """Last step in the sample log, once this life has opened it anew."""
        if self._identity() == self._before:
            return 0
        with self._samples.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().split(b"\n")[:-1]
        try:
            return int(json.loads(lines[-1])[0]) if lines else 0
        except ValueError:
            return 0

    def _cut(self) -> set[tuple[Path, int]]:
        """Checkpoints that are half written, with the time of their last byte."""
        return {
            (path, path.stat().st_mtime_ns) for path in (self.folder / CHECKPOINTS).glob(UNFINISHED.format("*.ckpt"))
        }

    def _identity(self) -> int | None:
        """Number of the log's file on the disk: each life replaces the file when it starts to train."""
        try:
            return self._samples.stat().st_ino
        except FileNotFoundError:
            return None


def newest_checkpoint(folder: Path) -> int:
    """Step of the newest whole checkpoint of a run; 0 = none."""
    return max((int(path.stem.partition("_")[2]) for path in (folder / CHECKPOINTS).glob("step_*.ckpt")), default=0)
