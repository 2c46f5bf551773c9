"""A run over more shards than it may have files open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from open_file_limit import open_files_at_most
from shard_files import write_many_shards, write_tokenizer
from tiny_run import arguments

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train

SHARDS, STEPS, BATCH = 2000, 5, 400


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_2000_shards_are_trained_on_with_256_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_many_shards(tmp_path / "shards", SHARDS)
    write_tokenizer(tmp_path / "tokenizer")
    run = tmp_path / "run"
    length = [f"steps={STEPS}", f"checkpoint_every={STEPS}", f"validate_every={STEPS}", f"global_batch_size={BATCH}"]
    overrides = [*arguments(tmp_path / "out"), *length, "data.num_workers=2", "accumulate=20", f"paths.run_dir={run}"]
    with open_files_at_most(256):
        assert run_command(train, overrides) == 0
    assert json.loads((run / "results.json").read_text())["rejected_samples"] == 0
