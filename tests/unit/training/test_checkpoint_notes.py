"""A checkpoint to go on from may come from anybody: what it lacks or has of another type is one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blip2_train.errors import CheckpointMismatch
from blip2_train.training.checkpoint_notes import written_by

PARTS = {"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "loops": {}, "global_step": 3}
NOTES = {"seed": 1, "steps": 9, "accumulate": 2, "frozen_fingerprint": "", "config": "", "saves": 4}


def test_what_a_run_writes_is_taken() -> None:
    actual = written_by(PARTS | {"blip2_train": NOTES})
    assert (actual.seed, actual.steps, actual.accumulate, actual.frozen_fingerprint, actual.saves) == (1, 9, 2, "", 4)
    earlier = {key: value for key, value in NOTES.items() if key != "saves"}
    assert written_by(PARTS | {"blip2_train": earlier}).saves == 0


@pytest.mark.parametrize(
    ("parts", "notes", "words"),
    [
        ({}, {"steps": "9"}, "steps: expected int, got str"),
        ({}, {"accumulate": 0}, "accumulate: expected int >= 1"),
        ({}, {"frozen_fingerprint": None}, "frozen_fingerprint: expected str, got null"),
        ({}, {"seed": torch.zeros(1)}, "seed: Tensor is no plain value"),
        ({"global_step": "3"}, {}, "global_step is no number"),
        ({"loops": None}, {}, "it lacks loops"),
    ],
)
def test_what_is_wrong_is_named(parts: dict[str, Any], notes: dict[str, Any], words: str) -> None:
    checkpoint = {key: value for key, value in {**PARTS, **parts}.items() if value is not None}
    with pytest.raises(CheckpointMismatch, match=words) as caught:
        written_by(checkpoint | {"blip2_train": NOTES | notes})
    assert str(caught.value).startswith("the checkpoint") and "init_from=" in str(caught.value)
