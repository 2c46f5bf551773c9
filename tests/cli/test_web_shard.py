"""Web images as img2dataset leaves them train through the command, without a setting for them."""

import json
from pathlib import Path

import pytest
from shard_files import write_tokenizer, write_web_shard
from tiny_run import arguments

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main


def test_a_shard_of_web_images_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_web_shard(tmp_path / "shards")
    write_tokenizer(tmp_path / "tokenizer")
    folder = tmp_path / "out" / "run"
    overrides = ["data.num_workers=0", "data.holdout=1", f"paths.run_dir={folder}"]
    assert run_command(main, [*arguments(tmp_path / "out"), *overrides]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["steps"] == 9 and results["rejected_samples"] == 0
    assert 0 < results["train/loss_itg"] < 10 and (folder / "export" / "model.safetensors").is_file()
