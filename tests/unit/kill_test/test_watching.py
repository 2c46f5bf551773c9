"""Kills meet the moments that were asked for, in a stand-in for a run that writes what a run writes, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kill_test import launch
from kill_test.launch import LaunchedRun
from kill_test.moments import Moment
from kill_test.watching import Kill, RunWatch

RUN = """
import json, pathlib, time
folder = pathlib.Path({folder!r}); places = folder / "checkpoints"; log = folder / "samples.jsonl"
places.mkdir(parents=True, exist_ok=True)
time.sleep(0.2)
first = max((int(path.stem[5:]) for path in places.glob("step_*.ckpt")), default=0)
lines = [[step, ["a"]] for step in range(1, first + 1)]
(folder / "new").write_text("".join(json.dumps(line) + "\\n" for line in lines)); (folder / "new").replace(log)
for cut in places.glob(".*.unfinished"): cut.unlink()
for step in range(first + 1, 17):
    time.sleep(0.1)
    with log.open("a") as file: file.write(json.dumps([step, ["a"]]) + "\\n")
    if step % 5 == 0:
        unfinished = places / f".step_{{step:07d}}.ckpt.unfinished"
        unfinished.touch(); time.sleep(0.4); unfinished.replace(places / f"step_{{step:07d}}.ckpt")
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@pytest.mark.slow
def test_moments_are_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    code, begin = RUN.format(folder=str(folder)), subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen", lambda _, **options: begin([sys.executable, "-c", code], **options))

    def kill(kind: str, step: int, wait: float = 0.5) -> Kill | None:
        watch = RunWatch(folder, 5)
        return watch.kill_at(LaunchedRun([], 1, tmp_path / "log"), Moment(kind=kind, step=step, wait=wait), 1)  # type: ignore[arg-type]

    kills = [
        kill("anywhere", 3),
        kill("checkpoint", 5),
        kill("start", 6, 0.1),
        kill("epoch", 7),
        kill("checkpoint", 10),
    ]
    assert None not in kills
    shown = [(one.step, one.checkpoint, one.cut) for one in kills if one is not None]
    assert shown[1:3] == [(5, 0, True), (5, 0, False)] and shown[4] == (10, 5, True), shown
    assert 3 <= shown[0][0] <= 5 and 7 <= shown[3][0] <= 9 and shown[3][1:] == (5, False), shown
    assert kill("anywhere", 99) is None, "the run ended before"
