"""What a run is built from: callbacks of its own, and objects that fit together."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from blip2_train.errors import ConfigError
from blip2_train.training.run import RunOptions, RunReporter, build_run, default_callbacks
from blip2_train.training.run_checkpoints import RunCheckpoints


def test_the_default_callbacks_write_into_the_run_folder(tmp_path: Path) -> None:
    checkpoints, *others = default_callbacks(RunOptions(run_dir=tmp_path, checkpoint_every=7))
    assert isinstance(checkpoints, RunCheckpoints)
    assert (checkpoints.folder, checkpoints.every) == (tmp_path / "checkpoints", 7)
    assert [type(one).__name__ for one in others] == ["SkipNonFinite", "ChangeWarnings"]


def test_objects_of_different_lengths_are_refused(tmp_path: Path) -> None:
    class Data:
        steps = 3

    class Module:
        class optimizer_config:
            steps = 2

    with pytest.raises(ConfigError, match="3 steps and the optimiser 2"):
        build_run(Module(), Data(), RunOptions(run_dir=tmp_path))  # type: ignore[arg-type]


def test_notes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "blip2_train.training.run")
    RunReporter().line("going on")
    assert caplog.messages == ["going on"]
