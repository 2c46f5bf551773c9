"""What CapFilt is worth, very small: the counts are those of the sets, and nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from capfilt_demo import demo
from capfilt_demo.command import main
from demo_exports import write_exports

from blip2_train.cli.train.command import main as train
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.errors import ConfigError


@pytest.mark.slow
def test_a_very_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exports, trained = write_exports(tmp_path / "exports"), []

    def launch(command: str, settings: Sequence[str], log: Path, threads: int) -> None:
        trained.append(command)
        train(list(settings))

    monkeypatch.setattr(demo, "launch_child", launch)
    models = [f"captioner={exports['opt']}", f"scorer={exports['stage1']}"]
    given = ["demo", *models, f"output={tmp_path / 'out'}", "scenes=100", "captions=1", "steps=1", "workers=1"]
    given += ["trainer=cpu", "optim.warmup_steps=1", "global_batch_size=8", "data.validation_samples=16"]
    main(given)
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out/capfilt_demo.json").read_text())["sets"]
    noisy, filtered = record["noisy"], record["capfilt"]
    assert (noisy["captions"], noisy["scenes"], noisy["injected"], noisy["injected_left"]) == (100, 100, 30, 30)
    assert noisy["wrong"] == noisy["scenes_without_right"] == 30 and noisy["right_left"] == 70
    shards = ShardSource(str(tmp_path / "out/capfilt"), "made")
    assert filtered["scenes"] == len(shards) == 100
    assert filtered["captions"] == sum(len(shards.read(number).captions) for number in range(100))
    assert filtered["injected"] == 30 and filtered["wrong"] >= filtered["injected_left"]
    assert all(f"{record[name]['val/text_to_image_r1']:.1f}" in printed for name in record)
    assert trained == ["train", "train"]
    before = (tmp_path / "out/capfilt/index.json").stat().st_mtime_ns
    main(given)
    assert trained == ["train", "train"] and (tmp_path / "out/capfilt/index.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"was made with wrong 0.3, now it is 0.5; give another output"):
        main([*given, "wrong=0.5"])
    with pytest.raises(ConfigError, match="there is no setting 'scense'; did you mean 'scenes'"):
        main([*given, "scense=3"])
