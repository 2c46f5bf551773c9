"""The command that kills the making of shards does kill it, and sees what is not the same."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from kill_test import preparation
from kill_test.preparation import main

from blip2_train.cli.terminal import run_command


@pytest.mark.slow
def test_killed_shards_are_those_made_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["scenes=400", "kills=1", f"folder={tmp_path}", "samples_per_shard=1", "workers=1"])
    output = capsys.readouterr().out
    assert "killed when 50% were done" in output and "the same 1202 files, byte for byte" in output
    assert max(map(int, re.findall(r"\d+", output.partition("of the work: ")[2].partition("\n")[0]))) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["scenes-400"]


def test_a_difference_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Any, until: float | None = None) -> int:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "index.json").write_text("{}")
        (self.folder / "00001.tar").write_text(self.folder.name)
        self.seconds = 2
        return 0 if until is None else -signal.SIGKILL

    monkeypatch.setattr(preparation._Making, "run", run)
    arguments = ["scenes=4", "kills=2", f"folder={tmp_path}"]
    assert run_command(main, arguments) == 2
    assert "error: 1 files differ, the first is 00001.tar; see" in capsys.readouterr().err
    monkeypatch.setattr(preparation._Making, "run", lambda *_, **__: 7)
    assert run_command(main, arguments) == 2
    assert "make_shards.py ended with 7 instead of 0" in capsys.readouterr().err
    assert run_command(main, ["kills=some"]) == 2
    assert "kills=some: expected a whole number" in capsys.readouterr().err
