"""A sweep that cannot be made is refused in one line, before anything is submitted or written."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.cli.train.sweep.plan import plan_sweep

DEMO, LOCAL = "experiment=demo_stage1", "hydra/launcher=submitit_local"
WRONG = {
    "unknown key": ([DEMO, "seed=0,1", "optim.lrr=1"], ["run 0 (seed=0)", "'optim.lrr'", "did you mean 'optim.lr'?"]),
    "unknown key, swept": ([DEMO, "+optim.lrr=1,2"], ["'optim.lrr'", "did you mean 'optim.lr'?"]),
    "second value": ([DEMO, "optim.lr=1e-4,fast"], ["run 1 (optim.lr=fast)", "optim.lr is 'fast'", "a number"]),
    "second option": ([DEMO, "logger=csv,cvs"], ["run 1 (logger=cvs)", "did you mean csv?"]),
    "no values": ([DEMO, "optim.lr=interval(0,1)"], ["'optim.lr=interval(0,1)'", "optim.lr=a,b"]),
    "pattern": ([DEMO, "logger=glob(*)"], ["'logger=glob(*)'", "logger=a,b"]),
    "run folder": ([DEMO, "seed=0,1", "paths.run_dir=x"], ["paths.run_dir", "paths.output_dir"]),
    "resume": ([DEMO, "seed=0,1", "resume_from=last"], ["resume_from", "without --multirun"]),
    "--cfg": ([DEMO, "seed=0,1", "--cfg", "job"], ["--cfg", "--multirun"]),
    "unknown launcher": ([DEMO, "hydra/launcher=submitit_slum"], ["did you mean submitit_slurm?"]),
    "option without launcher": ([DEMO, "hydra.launcher.nodes=2"], ["hydra.launcher.nodes=2", "hydra/launcher="]),
    "swept launcher": ([DEMO, "hydra/launcher=basic,submitit_local"], ["launched alike"]),
    "other settings of Hydra": ([DEMO, "hydra/sweeper=optuna"], ["'hydra/sweeper'", "hydra/launcher"]),
}  # fmt: skip
WRONG_LAUNCHER = {
    "unknown option": ([LOCAL, "+hydra.launcher.task_per_node=2"], ["did you mean 'hydra.launcher.tasks_per_node'?"]),
    "no number": ([LOCAL, "hydra.launcher.nodes=two"], ["nodes", "'two'"]),
    "two nodes here": ([LOCAL, "hydra.launcher.nodes=2"], ["hydra.launcher.nodes=2", "this machine only"]),
    "processes": ([LOCAL, "hydra.launcher.tasks_per_node=2"], ["starts 2 processes", "trainer uses 1 on 1"]),
    "no cluster": (["hydra/launcher=submitit_slurm"], ["sbatch", "hydra/launcher=submitit_local"]),
}  # fmt: skip


def refusal(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that a sweep with these arguments prints; it leaves nothing in `folder`."""
    assert run_command(main, ["--multirun", *arguments, f"paths.output_dir={folder}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and list(folder.iterdir()) == []
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize(("arguments", "parts"), WRONG.values(), ids=WRONG.keys())
def test_wrong_sweep(
    arguments: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(arguments, tmp_path, capsys)
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.skipif(find_spec("hydra_plugins") is None, reason="hydra-submitit-launcher is not installed")
@pytest.mark.parametrize(("arguments", "parts"), WRONG_LAUNCHER.values(), ids=WRONG_LAUNCHER.keys())
def test_wrong_launcher(
    arguments: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal([DEMO, "seed=0,1", "trainer=cpu", *arguments], tmp_path, capsys)
    assert [part for part in parts if part not in line] == [], line


def test_a_launcher_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_submitit_launcher", None)
    assert 'pip install "blip2_train[slurm]"' in refusal([DEMO, LOCAL], tmp_path, capsys)


def test_under_torchrun(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert "torchrun" in refusal([DEMO, "seed=0,1"], tmp_path, capsys)


@pytest.mark.parametrize(
    ("setting", "parent"), [("seed=0,1", "demo_stage1"), ("debug=fast,overfit", "debug/demo_stage1")]
)
def test_folders(tmp_path: Path, setting: str, parent: str) -> None:
    sweep = plan_sweep([DEMO, setting, f"paths.output_dir={tmp_path}"], None, None)
    assert [job.folder.parent for job in sweep.jobs] == [tmp_path / parent] * 2
    assert len({job.folder for job in sweep.jobs}) == 2 and sweep.folder.parent == tmp_path / "sweeps"
