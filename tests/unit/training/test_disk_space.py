"""A disk that will be full is refused before the first step; one that is full leaves the checkpoint before."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from blip2_train.training import checkpoint_files
from blip2_train.training.checkpoint_files import CheckpointFiles
from blip2_train.training.disk_space import checkpoint_bytes, measure_space, weight_bytes
from blip2_train.training.earlier_runs import find_checkpoint
from blip2_train.training.run_checkpoints import RunCheckpoints
from blip2_train.training.stop_signals import StopSignals

GB = 10**9


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_what_a_checkpoint_takes() -> None:
    model = nn.ModuleDict({"vision_model": nn.Linear(9, 9), "qformer": nn.Linear(3, 5, bias=False)})
    model["vision_model"].requires_grad_(False)
    assert (weight_bytes(model), checkpoint_bytes(model)) == (60, 180)


def test_whether_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "not" / "yet"
    for free, fits, tight in ((6 * GB - 1, False, False), (6 * GB, True, True), (9 * GB, True, False)):
        with_free(monkeypatch, free)
        space = measure_space(folder, 5 * GB // 2, GB, newest=1, best=0)
        assert (space.need, space.free, space.fits, space.tight) == (6 * GB, free, fits, tight)
    assert "write 6.0 GB (1 newest, 0 best and one more" in space.text and "2.5 GB each" in space.text


def test_checkpoints_that_are_there_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_0000001.ckpt").write_bytes(bytes(1000))
    with_free(monkeypatch, 2500)
    assert measure_space(tmp_path, 1000, 500, newest=1, best=1).fits
    assert not measure_space(tmp_path / "other", 1000, 500, newest=1, best=1).fits


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = tmp_path / "checkpoints" / "step_0000001.ckpt", CheckpointFiles()
    files.save_checkpoint({"a": torch.ones(3)}, path)

    def until_full(value: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files.torch, "save", until_full)
        files.save_checkpoint({"a": torch.zeros(3)}, path)
    assert "step_0000001.ckpt cannot be written: No space left on device" in files.problem
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))
    files.save_checkpoint({"a": torch.zeros(3)}, path)
    assert files.problem == "" and torch.equal(torch.load(path, weights_only=True)["a"], torch.zeros(3))


def test_a_kill_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints"
    CheckpointFiles().save_checkpoint({"a": torch.ones(3)}, folder / "step_0000001.ckpt")

    def until_killed(value: Any, file: Any) -> None:
        file.write(b"half of it")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        checkpoint_files.torch.save = until_killed  # type: ignore[assignment]
        CheckpointFiles().save_checkpoint({"a": torch.zeros(3)}, folder / "step_0000002.ckpt")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 2
    assert find_checkpoint(str(tmp_path), "", "") == folder / "step_0000001.ckpt"
    monkeypatch.setattr(StopSignals, "listen", lambda *_: None)
    trainer: Any = SimpleNamespace(is_global_zero=True, strategy=SimpleNamespace(launcher=None))
    RunCheckpoints(str(folder), every=1).on_train_start(trainer, None)  # type: ignore[arg-type]
    assert [path.name for path in folder.iterdir()] == ["step_0000001.ckpt"]


def test_a_limit_of_the_system_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """The system itself refuses to write on: torch's writer then reports something else than the system's error."""
    path, files = tmp_path / "step_0000001.ckpt", CheckpointFiles()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        files.save_checkpoint({"a": torch.ones(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in files.problem and list(tmp_path.iterdir()) == []
