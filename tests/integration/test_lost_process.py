"""A process or a reader that dies, or hangs, ends the whole run in time, with one line that says what happened."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from training_process import TORCHRUN, run_folder, start, write_data

TWO = ("trainer=ddp_cpu", "trainer.devices=2", "data.num_workers=2", "trainer.strategy.patience=15")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
@pytest.mark.parametrize(
    ("by", "words"),
    [
        (signal.SIGKILL, "one of them died"),
        (signal.SIGSTOP, "silent for more than the 15 s of trainer.strategy.patience"),
    ],
)
def test_a_lost_process_ends_the_run(tmp_path: Path, by: signal.Signals, words: str) -> None:
    folder = write_data(tmp_path) / by.name
    fall = f"callbacks.fall={{_target_: training_child.Fall, step: 5, by: {int(by)}}}"
    began = time.monotonic()
    printed = start(folder, *TWO, fall, launcher=(*TORCHRUN, "--standalone", "--nproc-per-node=2"), code=1)
    (line,) = [line for line in printed.splitlines() if "error: " in line and "cannot reach the others" in line]
    assert words in line and "process 0 of 2" in line, line
    run = run_folder(folder)
    assert f"resume_from={run}" in line and [p.name for p in run.glob("checkpoints/*")] == ["step_0000003.ckpt"]
    assert "Traceback" not in printed.partition("cannot reach the others")[0], printed
    assert time.monotonic() - began < 120, "it ended by a limit of the test, not by its own"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_reader_ends_the_run(tmp_path: Path, processes: int) -> None:
    folder = write_data(tmp_path) / "killed"
    kill = "callbacks.kill={_target_: training_child.KillReader, step: 4}"
    if processes == 1:
        printed = start(folder, "data.num_workers=2", kill, code=2)
        assert len(printed.partition("error: ")[2].splitlines()) == 1, printed
    else:
        patient = "trainer.strategy.patience=90"
        printed = start(folder, *TWO, patient, kill, launcher=(*TORCHRUN, "--standalone", "--nproc-per-node=2"), code=1)
    lines = [line for line in printed.splitlines() if "error: a data reader" in line]
    assert len(lines) == 1, printed
    (line,) = lines
    assert "was killed (SIGKILL)" in line and "lower data.num_workers" in line and "resume_from=last" in line
    assert "Traceback" not in printed.partition("error: a data reader")[0], printed
    assert list(run_folder(folder).glob("checkpoints/step_*.ckpt"))
