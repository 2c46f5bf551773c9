"""The notes of a checkpoint on the run that wrote it, as checked values: the file may come from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.records import Count, Size, check_record

_FIX = "resume from another checkpoint, or start from the weights of an export with init_from=<export>"
_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")


class CheckpointNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What decides whether a run can go on from a checkpoint."""

    seed: int
    steps: Count
    """Optimiser steps of the whole run."""
    accumulate: Size
    """Batches that make one step."""
    frozen_fingerprint: str
    saves: Count = 0
    """How many checkpoints the run had written."""


def written_by(checkpoint: Mapping[str, Any]) -> CheckpointNotes:
    """The notes of a checkpoint that training is to go on from.

    Raises:
        CheckpointMismatch: naming what is missing or of the wrong type.
    """
    if missing := next((part for part in _PARTS if part not in checkpoint), None):
        raise CheckpointMismatch(f"the checkpoint cannot be resumed from (it lacks {missing}); {_FIX}")
    if type(checkpoint["global_step"]) is not int:
        raise CheckpointMismatch(f"the checkpoint cannot be resumed from (global_step is no number); {_FIX}")
    return check_record(checkpoint["blip2_train"], CheckpointNotes, "the checkpoint: blip2_train", _FIX)
