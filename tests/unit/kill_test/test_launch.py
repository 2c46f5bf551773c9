"""A kill leaves no process of a run, whatever session it is in."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_test import launch
from kill_test.launch import LaunchedRun

from blip2_train.errors import TrainingError

CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], "
CHILD += "start_new_session=True); print('started', flush=True); import time; time.sleep(99)"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def replace_launcher(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    begin = subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen", lambda _, **options: begin([sys.executable, "-c", code], **options))


def test_a_child_in_a_session_of_its_own_is_killed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_launcher(monkeypatch, CHILD)
    run = LaunchedRun([], 1, tmp_path / "log")
    while "started" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    assert len(run._find()) == 2 and run.status is None
    run.kill()
    assert run._find() == [] and run.status is not None


def test_a_run_that_fails_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_launcher(monkeypatch, "print('what went wrong'); raise SystemExit(3)")
    with pytest.raises(TrainingError, match=r"status 3.*what went wrong"):
        LaunchedRun([], 1, tmp_path / "log").wait()
