"""Runs that read shards one after the other: killed and resumed, by several processes, from commands."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tiny_run import arguments
from training_process import assert_same_run, run_folder, samples, start, write_data

SEQUENTIAL = ("verbose=true", "data.access=sequential", "data.streams=1", "data.shuffle_buffer=4")
KILL = 7


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("sequential"))


@pytest.fixture(scope="module")
def uninterrupted(workspace: Path) -> Path:
    """Output folder of a run that was never killed."""
    printed = start(workspace / "whole", *SEQUENTIAL, "data.num_workers=0", other=True)
    assert "shards: 2 shards (" in printed and "read one after the other" in printed
    return workspace / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_killed_and_resumed_equals_uninterrupted(workspace: Path, uninterrupted: Path, workers: int) -> None:
    folder = workspace / f"killed_{workers}"
    own = (*SEQUENTIAL, f"data.num_workers={workers}")
    start(folder, *own, kill_at=KILL, code=-signal.SIGKILL)
    assert "going on from step 6" in start(folder, *own, "resume_from=last")
    assert_same_run(uninterrupted, folder)


@pytest.mark.slow
def test_two_processes_share_the_shards_killed_and_resumed(workspace: Path) -> None:
    own = (*SEQUENTIAL, "data.num_workers=0")
    start(workspace / "whole_two", *own, processes=2, other=True)
    folder = workspace / "killed_two"
    start(folder, *own, processes=2, kill_at=KILL, code=-signal.SIGKILL)
    refused = start(folder, *own, "resume_from=last", code=2)
    assert refused.strip().splitlines()[-1].startswith("error: cannot resume with other data: number of processes")
    start(folder, *own, "resume_from=last", processes=2)
    assert_same_run(workspace / "whole_two", folder, ranks=2)
    steps = samples(workspace / "whole_two", 2)
    assert len(steps) == 9 and all(len(ids) == 4 for ids in steps.values())


def test_commands_on_the_command_line_are_read(workspace: Path, uninterrupted: Path) -> None:
    shards = workspace / "shards"
    address = f"data.source='pipe:cat {shards}/{{00000..00001}}.tar'"
    own = (*SEQUENTIAL, "data.num_workers=1", address, "data.holdout=0", "validate_every=null")
    start(workspace / "piped", *own)
    assert len(samples(workspace / "piped")) == 9
    folder = workspace / "piped_again"
    start(folder, *own, kill_at=KILL, code=-signal.SIGKILL)
    start(folder, *own, "resume_from=last")
    assert_same_run(workspace / "piped", folder)


@pytest.mark.parametrize("access", ["sequential", "random"])
def test_commands_in_a_file_are_refused(workspace: Path, tmp_path: Path, access: str) -> None:
    flag = tmp_path / "was_run"
    recipes = tmp_path / "configs"
    (recipes / "data").mkdir(parents=True)
    text = f"defaults: [shards]\nsource: ['pipe:touch {flag}']\naccess: {access}\nstreams: 1\nholdout: 0\n"
    (recipes / "data" / "theirs.yaml").write_text(text)
    folder = workspace / f"refused_{access}"
    own = ("data=theirs", "data.num_workers=0", "validate_every=null", f"--config-dir={recipes}")
    base = [one for one in arguments(folder) if not one.startswith(("data.source", "data=", "data.holdout"))]
    printed = start(folder, *own, base=base, code=2)
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert "pipe:touch" in line and "command line" in line
    assert not flag.exists() and not list(folder.glob("demo_*/*/results.json"))


def test_the_run_folder_records_how_it_was_read(uninterrupted: Path) -> None:
    assert "access: sequential" in (run_folder(uninterrupted) / "config.yaml").read_text()
