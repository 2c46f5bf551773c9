"""The best validation of a run decides what is exported, also of a run that was killed."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import arguments
from training_process import assert_same_run, run_folder, start, write_data

from blip2_train.checkpoints.export import read_export
from blip2_train.cli.export import main as export
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.evaluation.run_metrics import read_results
from blip2_train.training.best_checkpoint import BestCheckpoint

RISING = ("validate_every=3", "monitor=val/loss_itg", "optim.lr=0.5", "optim.min_lr=0.4", "optim.warmup_steps=6")
"""A run whose loss falls first, then rises with a learning rate far too large."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("best"))


@pytest.fixture(scope="module")
def uninterrupted(workspace: Path) -> Path:
    start(workspace / "whole", "data.num_workers=0", *RISING, other=True)
    return workspace / "whole"


def validated(folder: Path) -> dict[int, float]:
    """The monitored score by step."""
    rows = csv.DictReader((run_folder(folder) / "metrics.csv").open())
    return {int(row["step"]): float(row["val/loss_itg"]) for row in rows if row["val/loss_itg"]}


def test_the_best_weights_are_exported_and_the_newest_kept(uninterrupted: Path, capsys: Any) -> None:
    folder, scores = run_folder(uninterrupted), validated(uninterrupted)
    best = min(scores, key=lambda step: scores[step])
    assert list(scores) == [3, 6, 9] and best != 9, scores
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == [f"best_{best:07d}.ckpt", "step_0000009.ckpt"]
    state, manifest = read_export(folder / "export")
    checkpoint = torch.load(folder / "checkpoints" / kept[0], weights_only=True)["state_dict"]
    assert all(torch.equal(checkpoint[f"model.{name}"], tensor) for name, tensor in state.items())
    assert len(state) == len(checkpoint)
    results = json.loads((folder / "results.json").read_text())
    assert results["exported_step"] == manifest.step == best and results["steps"] == 9
    assert manifest.checkpoint == kept[0]
    assert results["val/loss_itg"] == manifest.metrics["val/loss_itg"] == scores[best]
    assert run_command(export, [str(folder / "checkpoints" / kept[0]), str(folder / "again")]) == 0
    again = read_export(folder / "again")[1]
    assert (again.sha256, again.step, again.metrics["val/loss_itg"]) == (manifest.sha256, best, scores[best])
    assert run_command(export, [str(folder), str(folder / "once more")]) == 0
    assert read_export(folder / "once more")[1].sha256 == manifest.sha256


def test_what_is_published_is_what_the_run_exported(uninterrupted: Path, tmp_path: Path, capsys: Any) -> None:
    folder = shutil.copytree(run_folder(uninterrupted), tmp_path / "run")
    manifest = read_export(folder / "export")[1]
    there = f"export: {folder / 'export'} (of step {manifest.step})"
    assert there in dry_run(folder, manifest.step, capsys)
    (folder / "checkpoints").rename(tmp_path / "elsewhere")
    assert there in dry_run(folder, manifest.step, capsys)
    (tmp_path / "elsewhere").rename(folder / "checkpoints")
    shutil.rmtree(folder / "export")
    printed = dry_run(folder, manifest.step, capsys)
    assert f"export: would be {folder / 'export'} (of {manifest.checkpoint})" in printed


def dry_run(folder: Path, step: int, capsys: Any) -> str:
    """What is shown of an upload, whose card names the step, and after which the run folder is as it was."""
    before = contents(folder)
    assert run_command(export, [str(folder), "--push", "me/model", "--dry-run"]) == 0
    assert contents(folder) == before
    printed: str = capsys.readouterr().out
    assert f"{step} optimiser steps" in printed
    return printed


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("kill", [4, 7, 8])
def test_a_killed_run_keeps_its_best(workspace: Path, uninterrupted: Path, kill: int) -> None:
    """Killed between a validation and the next checkpoint, which does not know of it."""
    folder = workspace / f"killed_{kill}"
    start(folder, "data.num_workers=0", *RISING, kill_at=kill, code=-signal.SIGKILL)
    printed = start(folder, "data.num_workers=0", *RISING, "resume_from=last")
    assert "exported are the weights with the best val/loss_itg" in printed
    assert_same_run(uninterrupted, folder)
    kept = [[path.name for path in (run_folder(f) / "checkpoints").glob("best_*")] for f in (uninterrupted, folder)]
    assert kept[0] == kept[1] and len(kept[0]) == 1
    results = [read_results(run_folder(f)) for f in (uninterrupted, folder)]
    assert {k: v for k, v in results[0].items() if "second" not in k} == {
        k: v for k, v in results[1].items() if "second" not in k
    }


@pytest.mark.slow
def test_two_processes_keep_one_best(workspace: Path) -> None:
    printed = start(workspace / "two", "data.num_workers=0", *RISING, processes=2)
    scores = validated(workspace / "two")
    best = min(scores, key=lambda step: scores[step])
    assert f"best_{best:07d}.ckpt" in printed and read_export(run_folder(workspace / "two") / "export")[1].step == best


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["monitor=val/cider"], "monitor=val/cider: validation has no such score, it has val/image_to_text_r1"),
        (["monitor=val/cider", "validate_every=null"], "needs validation"),
    ],
)
def test_a_score_that_is_not_there_is_one_line(
    workspace: Path, overrides: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))
    run = f"paths.run_dir={workspace / 'refused'}"
    assert run_command(main, [*arguments(workspace / "refused"), "data.num_workers=0", run, *overrides]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line


@pytest.mark.parametrize(("monitor", "better"), [("val/cider", 0.2), ("val/loss_lm", 0.05)])
def test_of_equal_scores_the_later_counts(monitor: str, better: float) -> None:
    best = BestCheckpoint(Path("checkpoints"), monitor)
    name = monitor.removeprefix("val/")
    assert best.beaten_by({name: 0.1})
    best.path, best.scores = Path("checkpoints/best_0000010.ckpt"), {name: 0.1}
    assert best.beaten_by({name: 0.1}) and best.beaten_by({name: better})
    assert not best.beaten_by({name: 0.25 - better})
