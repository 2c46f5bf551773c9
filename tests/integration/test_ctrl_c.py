"""Ctrl-C at any moment of a run: exit status 130, one line that says what is saved, and nothing half written."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from training_process import run_folder, start, write_data

from blip2_train.checkpoints.export import read_export
from blip2_train.checkpoints.training_checkpoints import read_training_state
from blip2_train.evaluation.run_metrics import read_results

RUN = ("validate_every=3", "checkpoint_every=4", "data.num_workers=2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("ctrl_c"))


def stopped(folder: Path, moment: str, *settings: str, times: int = 1, code: int = 130, processes: int = 1) -> str:
    """What a run prints that Ctrl-C stops; without a traceback."""
    interrupt = f"callbacks.interrupt={{_target_: training_child.Interrupt, moment: {moment}, times: {times}}}"
    readers = ("data.num_workers=0",) if processes > 1 else ()
    printed = start(folder, *RUN, *readers, interrupt, *settings, code=code, processes=processes)
    assert "Traceback" not in printed and "Exception" not in printed, printed
    return printed


def lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("stopped ")]


def test_while_a_run_starts(workspace: Path) -> None:
    printed = stopped(workspace / "setup", "setup")
    assert lines(printed) == ["stopped by Ctrl-C; nothing was written"]
    assert not (workspace / "setup" / "demo_stage1").exists(), "no folder is left"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("moment", "step"), [("train", 5), ("validation", 3)])
def test_in_training_the_step_is_finished_and_saved(workspace: Path, moment: str, step: int, processes: int) -> None:
    folder = workspace / f"{moment}_{processes}"
    (line,) = lines(stopped(folder, moment, processes=processes))
    assert line.startswith(f"stopped at step {step} by Ctrl-C and saved in {run_folder(folder)}; "), line
    (saved,) = (run_folder(folder) / "checkpoints").iterdir()
    assert read_training_state(saved)["global_step"] == step


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_one_ends_at_once_and_leaves_the_checkpoint_before(workspace: Path, processes: int) -> None:
    folder = workspace / f"twice_{processes}"
    printed = stopped(folder, "train", "checkpoint_every=2", times=2, processes=processes)
    (line,) = lines(printed)
    run = run_folder(folder)
    assert line == f"stopped at once by Ctrl-C; the newest checkpoint is as it was: resume_from={run} goes on"
    (saved,) = (run / "checkpoints").iterdir()
    assert read_training_state(saved)["global_step"] == 4
    printed = start(folder, *RUN, "data.num_workers=0", f"resume_from={run}", processes=processes)
    assert "going on from step 4" in printed


@pytest.mark.slow
def test_in_the_last_validation_the_steps_are_saved(workspace: Path) -> None:
    folder = workspace / "last"
    (line,) = lines(stopped(folder, "last_validation", "validate_every=5"))
    run = run_folder(folder)
    assert line == f"stopped by Ctrl-C; all 9 steps are saved in {run}; resume_from={run} validates and exports them"
    start(folder, *RUN, "validate_every=5", f"resume_from={run}")
    assert read_results(run)["steps"] == 9 and read_export(run / "export")[1].step == 9


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_what_ends_a_run_is_written_to_its_end(workspace: Path, by: signal.Signals) -> None:
    """Before the export, before the results, and before the curves."""
    folder = workspace / by.name
    printed = stopped(folder, "writing", f"callbacks.interrupt.by={int(by)}", code=0)
    run = run_folder(folder)
    assert "Ctrl-C" not in printed and "it ends by itself" in printed
    assert read_results(run)["steps"] == 9 and (run / "curves.png").stat().st_size > 1000
    assert read_export(run / "export")[1].step == 9
