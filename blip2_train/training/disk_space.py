"""Foresees whether what a run will write fits on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from blip2_train.errors import ConfigError
from blip2_train.models.freezing import kept_names

TIGHT = 1.25
"""Below this many times the need, a run is told that space is tight: other files grow too."""


def weight_bytes(model: nn.Module) -> int:
    """Bytes of an export: what checkpoints hold of a model."""
    keep = kept_names(model)
    return sum(p.numel() * p.element_size() for name, p in model.named_parameters() if name in keep)


def checkpoint_bytes(model: nn.Module) -> int:
    """Bytes of a checkpoint: the weights, and AdamW's two moments of those that train."""
    return weight_bytes(model) + sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def check_space(folder: Path, checkpoint: int, kept: int, export: int) -> str:
    """Compare what a run will write with what is free.

    Args:
        folder: The run folder, which need not exist; its checkpoints make room for new ones.
        checkpoint: Bytes of one.
        kept: Checkpoints that are kept; each time one more is written before one is removed.
        export: Bytes of it.

    Returns:
        A warning if it is tight, else an empty string.

    Raises:
        ConfigError: if it does not fit.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    present = sum(path.stat().st_size for path in folder.glob("checkpoints/*.ckpt"))
    need, free = max(0, (kept + 1) * checkpoint - present) + export, shutil.disk_usage(place).free
    what = (
        f"the run will write {_size(need)} ({kept + 1} checkpoints of {_size(checkpoint)}, one of them for a moment, "
        f"and an export of {_size(export)}), and {_size(free)} are free in {place}"
    )
    if free < need:
        raise ConfigError(f"disk: {what}; make room, or give paths.output_dir on another disk")
    return f"warning: disk space is tight: {what}" if free < TIGHT * need else ""


def _size(count: int) -> str:
    """Bytes for a person: `2.5 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
