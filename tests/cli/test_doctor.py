"""`doctor.py` on a small run: ready, and not ready with every problem in a line of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments

from blip2_train.cli.doctor import speed
from blip2_train.cli.doctor.command import main
from blip2_train.cli.doctor.weights import examine_weights
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.config.compose import compose
from blip2_train.errors import ConfigError


@pytest.fixture
def workspace(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shards and a tokenizer, and empty ones for what a run writes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(tmp_path / "shards", [9, 4, 13])
    write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    short = tmp_path_factory.mktemp("t")  # reading processes make sockets in it, whose paths may have 108 bytes
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    return tmp_path


def left_behind(workspace: Path) -> list[Path]:
    """What lies there now, without the folders of reading processes, which go with this process."""
    folders = (workspace / "here", workspace / "out", Path(tempfile.gettempdir()))
    return [path for folder in folders for path in folder.rglob("*") if "pymp-" not in str(path)]


@pytest.mark.slow
def test_a_good_set_up_is_ready_and_nothing_is_left(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*arguments(workspace / "out"), "data.num_workers=1", "optim.lr=1e-4", "measure=8"]
    monkeypatch.setattr(speed, "LONGEST", 0.0)  # the measurement ends as soon as it can tell something
    code = run_command(main, settings)
    captured = capsys.readouterr()
    assert code == 0, captured.out + captured.err
    assert "\ndemo_stage1 is ready" in captured.out and captured.err == ""
    for shown in ("input  '[CLS] a cat", "s per step (2 steps measured)", "3 shards for 1 processes x 1 reader = 1"):
        assert shown in captured.out, captured.out
    assert left_behind(workspace) == []


def test_every_problem_is_named_in_one_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = [
        f"data.source={workspace / 'absent'}",
        f"model.vision.weights={workspace / 'tower.safetensors'}",
        "model.qformer.weights=/absent/bert",
        "trainer=ddp_cpu",
        "trainer.devices=3",
    ]
    assert run_command(main, [*arguments(workspace / "out"), *broken, "device_memory=1e-5"]) == 2
    captured = capsys.readouterr()
    *problems, last = captured.err.splitlines()
    named = ("devices: global_batch_size 4", "data: ", "weights: ", "weights: ", "memory: ")
    assert [line.startswith(f"problem: {start}") for line, start in zip(problems, named, strict=True)] == [True] * 5
    for line, words in zip(
        problems, ("3 processes", "absent", "tower.safetensors", "/absent/bert", "more memory"), strict=True
    ):
        assert words in line
    assert last == "error: 5 problems to mend before demo_stage1 runs"
    assert "not measured" in captured.out
    assert left_behind(workspace) == []


def test_the_export_that_a_run_starts_from(workspace: Path) -> None:
    """Of stage 1 for stage 2, and for a Q-Former of another size."""
    stage_1 = ["steps=1", "validate_every=null", "optim.warmup_steps=0", "data.num_workers=0"]
    assert run_command(train, [*arguments(workspace / "out"), *stage_1, f"paths.run_dir={workspace / 'run'}"]) == 0
    stage_2 = [*arguments(workspace / "out"), "experiment=demo_stage2_opt", f"init_from={workspace / 'run'}"]
    findings = examine_weights(compose(stage_2))
    assert {finding.level for finding in findings} == {"ok"}, findings
    assert f"export {workspace / 'run' / 'export'}" in findings[-1].text
    with pytest.raises(ConfigError, match=r"intermediate_size=48 contradicts export .*/export, which has 32"):
        compose([*stage_2, "model.qformer.intermediate_size=48"])
    other = OmegaConf.merge(compose(stage_2), {"model": {"qformer": {"intermediate_size": 48}}})
    findings = examine_weights(other)
    assert [finding.level for finding in findings] == ["ok", "problem"]
    assert "export" in findings[1].text and "the model needs" in findings[1].text
    (workspace / "run" / "export" / "model.safetensors").write_bytes(b"cut short")
    assert "SHA-256 differs" in examine_weights(compose(stage_2))[0].text
