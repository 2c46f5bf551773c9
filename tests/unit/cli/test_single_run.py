"""A run that goes on is composed twice and talks once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from blip2_train.cli.train import single


def test_derived_values_of_a_resumed_run_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint, runs = tmp_path / "run" / "checkpoints" / "step_0000005.ckpt", []
    monkeypatch.setattr("blip2_train.training.earlier_runs.find_checkpoint", lambda *_: checkpoint)
    monkeypatch.setattr(single, "_train", lambda config, path: runs.append((config, path)))
    with caplog.at_level(logging.INFO, "blip2_train"):
        single.train_single(["experiment=demo_stage1", "steps=30", "resume_from=last"])
    ((config, path),) = runs
    assert path == checkpoint and config.paths.run_dir == str(tmp_path / "run")
    lines: list[Any] = [
        record for record in caplog.records if record.getMessage().startswith("steps=30 of the recipe's")
    ]
    assert len(lines) == 1
    assert logging.getLogger("blip2_train.config").level == logging.NOTSET
