"""Checkpoints of a run on disk: whether one is complete, which is the newest, what replaces a damaged one."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.error_reasons import reason_of

CHECKPOINTS = "checkpoints"
"""Folder, inside that of a run, of its checkpoints."""
PERIODIC, BEST, ALL_NAMES = "step_*.ckpt", "best_*.ckpt", "*.ckpt"
"""Names of those that are written every few steps, of that of the best validation, and of both."""
_READING = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class SavedCheckpoint:
    """The description of a checkpoint, stored in it."""

    path: Path
    step: int
    """Optimiser steps that are done; -1 if it cannot be read."""
    saves: int
    """How many checkpoints the run had written with this one, whatever their names; 0 in those of earlier versions."""
    saved_at: float
    """Seconds since 1970 by the clock of the machine that wrote it; else the file's time of change."""
    scores: dict[str, float]
    """Scores of the validation of this step, if there was one."""


def read_training_state(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a training run, its tensors left on disk until they are used.

    Every byte is compared with the CRC-32 that torch's writer keeps of each part of the file, also in checkpoints of
    earlier versions; of 1 GB this takes about a seventh of the time that it took to write.

    Raises:
        CheckpointMismatch: if it is missing, damaged, cut short, or no checkpoint, naming one that can be used instead.
    """
    path = Path(path)
    try:
        state = _read_whole(path)
    except pickle.UnpicklingError as error:  # all bytes are as they were written
        raise CheckpointMismatch(
            f"checkpoint {path} is refused: {reason_of(error)}; resume from one that a run of yours has written"
        ) from error
    except _READING as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise CheckpointMismatch(f"checkpoint {path} is damaged ({reason}); {_instead_of(path)}") from error
    if not isinstance(state, dict) or "blip2_train" not in state:
        raise CheckpointMismatch(f"{path} is no checkpoint of a blip2_train run; foreign weights go by init_from")
    return state


def newest_checkpoint(paths: Iterable[Path]) -> Path | None:
    """The checkpoint that was written last, by the descriptions in the files; None of none.

    The count of saves decides among those of one folder, the time of saving among folders. One that cannot be read
    counts by its time of change, so that it is reported, not passed over for an older one.
    """
    folders: dict[Path, list[SavedCheckpoint]] = {}
    for one in map(describe_checkpoint, paths):
        folders.setdefault(one.path.parent, []).append(one)
    newest = []
    for checkpoints in folders.values():
        readable = [one for one in checkpoints if one.step >= 0]
        last = max(readable, key=lambda one: (one.saves, one.step, one.saved_at)) if readable else None
        for one in checkpoints:
            if one.step < 0 and (last is None or one.saved_at > _changed(last.path)):
                last = one
        assert last is not None
        newest.append(last)
    return max(newest, key=lambda one: (one.saved_at, one.path.name)).path if newest else None


def describe_checkpoint(path: Path) -> SavedCheckpoint:
    """The description of a checkpoint, without reading its tensors."""
    try:
        with zipfile.ZipFile(path) as archive:  # whose reader compares the description with its CRC-32
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    archive.read(name)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        about = state["blip2_train"]
        return SavedCheckpoint(
            path=path,
            step=int(state["global_step"]),
            saves=int(about.get("saves", 0)),
            saved_at=float(about.get("saved_at", path.stat().st_mtime)),
            scores=dict(about.get("scores", {})),
        )
    except (*_READING, TypeError, AttributeError):
        return SavedCheckpoint(path=path, step=-1, saves=-1, saved_at=_changed(path), scores={})


def _changed(path: Path) -> float:
    """Time of change; 0 of a file that a run has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read_whole(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of its part {damaged} differs")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _instead_of(damaged: Path) -> str:
    """What to resume from instead of a damaged checkpoint."""
    others = [describe_checkpoint(path) for path in damaged.parent.glob(ALL_NAMES) if path != damaged]
    for other in sorted(others, key=lambda one: (one.saves, one.step), reverse=True):
        try:
            _read_whole(other.path)
        except _READING:
            continue
        return f"the newest complete one beside it is of step {other.step}: resume_from={other.path}"
    return (
        "no complete one is beside it (callbacks.checkpoint.keep=2 keeps one more): start anew, or from the weights of "
        "an export with init_from=<export>"
    )
