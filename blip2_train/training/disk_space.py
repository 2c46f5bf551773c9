"""Foresees whether what a run will write fits on the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from blip2_train.models.freezing import kept_names

TIGHT = 1.25
"""Below this many times the need, a run warns that space is tight: other files grow too."""


FIX = "make room, keep fewer (callbacks.checkpoint.keep), or give paths.output_dir on another disk"


@dataclass(frozen=True, slots=True)
class Space:
    """What a run will write and what is free, in bytes and in words."""

    need: int
    free: int
    text: str

    @property
    def fits(self) -> bool:
        """Whether it can be written."""
        return self.need <= self.free

    @property
    def tight(self) -> bool:
        """Whether it can hardly be written."""
        return self.fits and TIGHT * self.need > self.free


def weight_bytes(model: nn.Module) -> int:
    """Bytes of an export: what checkpoints hold of a model."""
    keep = kept_names(model)
    return sum(p.numel() * p.element_size() for name, p in model.named_parameters() if name in keep)


def checkpoint_bytes(model: nn.Module) -> int:
    """Bytes of a checkpoint: the weights, and AdamW's two moments of those that train."""
    return weight_bytes(model) + sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def measure_space(folder: Path, checkpoint: int, export: int, *, newest: int, best: int) -> Space:
    """Compare what a run will write with what is free.

    Args:
        folder: The run folder, which need not exist; its checkpoints make room for new ones.
        checkpoint: Bytes of one.
        export: Bytes of it.
        newest: Newest checkpoints that are kept; each time one more is written before one is removed.
        best: 1 if that of the best validation is kept beside them.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    present = sum(path.stat().st_size for path in folder.glob("checkpoints/*.ckpt"))
    need, free = max(0, (newest + best + 1) * checkpoint - present) + export, shutil.disk_usage(existing).free
    text = (
        f"the run will write {_size(need)} ({newest} newest, {best} best and one more checkpoint while it is written, "
        f"{_size(checkpoint)} each, and an export of {_size(export)}), and {_size(free)} are free in {existing}"
    )
    return Space(need, free, text)


def planned_space(
    folder: Path, model: nn.Module, *, steps: int, checkpoint_every: int, keep: int, keeps_best: bool
) -> Space:
    """Compare what the checkpoints and the export of a run take with what is free.

    Args:
        folder: The run folder, which need not exist.
        model: That trains.
        steps: Optimiser steps of the run.
        checkpoint_every: Optimiser steps between checkpoints.
        keep: Newest checkpoints that are kept; 0 = none is written.
        keeps_best: Whether the checkpoint of the best validation is kept beside them.
    """
    newest = min(keep, -(-steps // checkpoint_every))  # the last step's is always written
    return measure_space(folder, checkpoint_bytes(model), weight_bytes(model), newest=newest, best=int(keeps_best))


def _size(count: int) -> str:
    """Bytes for a person: `2.5 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
