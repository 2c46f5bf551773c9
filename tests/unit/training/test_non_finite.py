"""The record of skipped steps after a kill."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from blip2_train.training.non_finite import RECORD, SkipNonFinite


def test_steps_that_are_repeated_after_a_kill_are_dropped(tmp_path: Path) -> None:
    """They will be met, and written, again."""
    (tmp_path / RECORD).write_text('{"step": 2}\n{"step": 4}\n{"step": 5}\n{"ste')
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=4)
    SkipNonFinite(str(tmp_path)).on_train_start(trainer, None)  # type: ignore[arg-type]
    assert (tmp_path / RECORD).read_text() == '{"step": 2}\n{"step": 4}\n'
