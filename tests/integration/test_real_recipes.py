"""The recipes of real weights take steps; without the weights, one line says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from real_weights import PARTS, needs

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train

SHORT = ("trainer=cpu", "steps=2", "global_batch_size=4", "validate_every=null", "init_from=null")


@pytest.mark.parametrize("recipe", ["real_stage1", "real_stage2"])
def test_parts_that_are_missing_are_named_with_the_command(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "parts"
    assert run_command(train, [f"experiment={recipe}", *SHORT, f"paths.real_parts={parts}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"error: experiment={recipe} reads real weights, and {parts}/vit_s/model.safetensors is not")
    assert f"python scripts/real_parts.py {parts}" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(name, marks=[*needs("minilm"), *needs("vit_s"), *needs("smollm2")])
        for name in ("real_stage1", "real_stage2")
    ],
)
def test_two_steps(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = [f"paths.data_dir={tmp_path}", f"paths.real_parts={PARTS}", f"paths.output_dir={tmp_path / 'out'}"]
    assert run_command(train, [f"experiment={recipe}", *SHORT, *folders, "verbose=true"]) == 0
    printed = capsys.readouterr().out
    assert "loaded 158 tensors" in printed and "ignored: 16 tensors (blocks.11.*" in printed
    assert os.listdir(tmp_path / "out") == [recipe]
