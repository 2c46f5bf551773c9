"""A sweep ends with one run folder for each run, however many processes train it and whoever starts them."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_run import STEPS, arguments
from training_process import write_data

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main

RECORD = "callbacks.record={_target_: training_child.Recorder, folder: '${paths.run_dir}'}"
TWO = ("trainer=ddp_cpu", "trainer.devices=2")
pytestmark = pytest.mark.slow
EACH = [STEPS * 2, STEPS * 2]
"""Samples that each of two processes trains on; were there more of them, they would write into the same files."""
plugin = pytest.mark.skipif(find_spec("hydra_plugins") is None, reason="hydra-submitit-launcher is not installed")
SLURM = {
    "sbatch": """cp "$1" batch.sh; setsid bash batch.sh >batch.log 2>&1 & echo $! >pid; echo Submitted batch job 7""",
    "srun": """mkdir -p "$(dirname "${3//%j/7}")"; out=${3//%j/7} err=${5//%j/7}; shift 5
               exec "$@" >>"${out//%t/0}" 2>>"${err//%t/0}\"""",
    "scontrol": """[ ! -e scontrol.log ] || exit 1; echo "$@" >scontrol.log; before=$(cat pid)
                   (while kill -0 "$before"; do sleep 0.1; done; exec bash batch.sh) >batch.log 2>&1 & echo $! >pid""",
    "sacct": """kill -0 "$(cat pid)" && state=RUNNING || state=COMPLETED
                printf 'JobID|State|NodeList\\n7|%s|here\\n' $state""",
}  # fmt: skip
"""A cluster of one node whose jobs start at once, and once more when they are queued again."""


@pytest.fixture
def workspace(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data of a small run; what a sweep starts finds the project and the tests' callbacks."""
    here = [str(Path(__file__).parent), str(root / "tests" / "support"), str(root)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*here, os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(here[0])
    return write_data(tmp_path)


def sweep(workspace: Path, *settings: str, code: int = 0) -> dict[str, Any]:
    """Make a small sweep; its record. Below the recipe's folder lies nothing but its run folders."""
    output = workspace / "out"
    given = [*arguments(output), "data.num_workers=0", RECORD, *settings]
    assert run_command(main, ["--multirun", *given]) == code
    (file,) = output.glob("sweeps/*/sweep.json")
    record: dict[str, Any] = json.loads(file.read_text())
    made = {str(path) for path in output.glob("demo_stage1/*")}
    assert made == {run["folder"] for run in record["runs"] if not run["failure"]}
    return record


def samples(run: dict[str, Any]) -> list[int]:
    """How many samples each process of a run has trained on."""
    files = sorted(Path(run["folder"]).glob("samples.*.jsonl"))
    return [sum(len(json.loads(line)[1]) for line in file.read_text().splitlines()) for file in files]


@pytest.mark.usefixtures("warm_python")
def test_one_after_the_other_and_one_fails(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = workspace / "nothing_here"
    record = sweep(workspace, *TWO, f"data.source={wrong},{workspace / 'shards'}", code=2)
    failed, good = record["runs"]
    printed = capsys.readouterr()
    assert "1 of 2 runs failed: run 0 (data.source=" in printed.err and failed["failure"] in printed.err
    assert good["failure"] == "" and good["results"]["steps"] == STEPS and samples(good) == EACH
    assert record["compared_by"] == "val/recall_mean" and good["score"] == good["results"]["val/recall_mean"]


@plugin
def test_two_jobs_of_two_processes_make_two_run_folders(workspace: Path) -> None:
    record = sweep(
        workspace, *TWO, "seed=range(0,2)", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"
    )
    assert [run["settings"] for run in record["runs"]] == ["seed=0", "seed=1"]
    assert len({run["folder"] for run in record["runs"]}) == 2
    for run in record["runs"]:
        written = json.loads((Path(run["folder"]) / "results.json").read_text())
        assert written.pop("crc32") > 0 and written == run["results"]
        assert run["results"]["steps"] == STEPS and samples(run) == EACH
    losses = {run["results"]["train/loss"] for run in record["runs"]}
    assert len(losses) == 2, "each had its own seed"


@plugin
@pytest.mark.usefixtures("warm_python")
def test_a_slurm_job_that_is_interrupted_is_queued_again_and_goes_on(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in SLURM.items():
        (workspace / name).write_text(f"#!/bin/bash\ncd '{workspace}'\n{script}\n")
        (workspace / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{workspace}:{os.environ['PATH']}")
    for name in ("NTASKS", "NTASKS_PER_NODE", "JOB_NUM_NODES"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    for name in ("NODEID", "PROCID", "LOCALID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    fall = f"callbacks.fall={{_target_: training_child.Fall, step: 5, by: {int(signal.SIGUSR1)}}}"
    record = sweep(workspace, fall, "seed=3", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=small")
    (run,) = record["runs"]
    assert run["failure"] == "" and run["results"]["steps"] == STEPS
    assert samples(run) == [STEPS * 4], "each step was made once"
    assert (workspace / "scontrol.log").read_text() == "requeue 7\n"
    batch = (workspace / "batch.sh").read_text()
    assert all(f"#SBATCH --{line}\n" in batch for line in ("partition=small", "ntasks-per-node=1", "signal=USR1@120"))
    (log,) = workspace.glob("out/sweeps/*/logs/7/7_0_log.out")
    assert f"going on from step 5 of {run['folder']}" in log.read_text().replace("\n", "")
