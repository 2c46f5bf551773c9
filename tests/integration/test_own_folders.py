"""No run harms another: each has a folder of its own, and what was left in one is never taken for another run's."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import arguments
from training_process import begin, start, write_data

from blip2_train.checkpoints.export import read_manifest
from blip2_train.checkpoints.training_checkpoints import read_training_state
from blip2_train.cli.export import main as export
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.config.run_folder import new_run_folder
from blip2_train.evaluation.run_metrics import read_metrics, read_results

ONE = ("data.num_workers=0", "validate_every=null")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("folders"))


@pytest.fixture
def train(workspace: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Trains in this process, in a folder below `workspace`; exit status and what was printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))

    def run(folder: Path, *settings: str) -> tuple[int, str]:
        code = run_command(main, [*arguments(workspace / "outputs"), *ONE, f"paths.run_dir={folder}", *settings])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_three_runs_started_at_once_have_three_folders_and_three_results(workspace: Path) -> None:
    processes = [begin(workspace / "three", *ONE, f"seed={seed}") for seed in (1, 2, 3)]
    for process in processes:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, output + errors
    folders = list((workspace / "three" / "demo_stage1").iterdir())
    assert len(folders) == 3
    assert len({read_results(folder)["train/loss"] for folder in folders}) == 3, "each has its own"
    assert len({read_manifest(folder / "export").sha256 for folder in folders}) == 3
    assert all(not list(folder.glob(".*")) for folder in folders), "nothing is left over"


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    """Of the same second, whoever comes first; and a folder in which nothing was written is gone."""
    from blip2_train import compose

    settings = ["experiment=demo_stage1", f"paths.output_dir={tmp_path}", "tokenizer=x"]
    config = compose(settings)
    name = Path(config.paths.run_dir).name
    with ExitStack() as stack:
        made = [stack.enter_context(new_run_folder(config, settings)) for _ in range(3)]
        folders = [Path(own.paths.run_dir) for own in made]
        assert [folder.name for folder in folders] == [name, f"{name}-2", f"{name}-3"]
        two = made[1]
        assert two.callbacks.checkpoint.folder == f"{folders[1]}/checkpoints"
        assert two.data.rejected_list == f"{folders[1]}/rejected.jsonl" and two.paths.output_dir == str(tmp_path)
        assert all(folder.is_dir() for folder in folders)
        (folders[2] / "results.json").touch()
    assert [path.name for path in (tmp_path / "demo_stage1").iterdir()] == [f"{name}-3"]


def test_folders_made_for_nothing_are_gone_and_those_that_were_there_stay(tmp_path: Path) -> None:
    from blip2_train import compose

    (tmp_path / "here").mkdir()
    settings = ["experiment=demo_stage1", f"paths.output_dir={tmp_path}/here/outputs", "tokenizer=x"]
    with new_run_folder(compose(settings), settings) as own:
        assert Path(own.paths.run_dir).is_dir()
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]
    (tmp_path / "here/outputs").mkdir()
    with new_run_folder(compose(settings), settings):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "here", tmp_path / "here/outputs"], "somebody else made it"


def test_data_that_are_not_there_are_one_line_and_nothing_is_left(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "there.csv").write_text("image,caption\na.jpg,a cat\n")
    for names, error in (
        (["source=gone.csv"], f"annotation file {tmp_path}/gone.csv does not exist; correct its path, or put the file"),
        (["source=there.csv", "images=gone"], f"image folder {tmp_path}/gone does not exist; give the folder of the"),
    ):
        data = [f"data.{name.replace('=', f'={tmp_path}/')}" for name in names]
        settings = ["experiment=demo_stage1", "data=captions", *data, f"paths.output_dir={tmp_path}/outputs"]
        assert run_command(main, settings) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.startswith(f"error: {error}") and printed.err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


def test_a_run_in_a_folder_that_another_one_writes_to_is_refused(workspace: Path, train: Callable[..., Any]) -> None:
    folder = workspace / "busy"
    running = begin(workspace / "outputs_busy", *ONE, f"paths.run_dir={folder}", "steps=2000", "checkpoint_every=2")
    try:
        while not list(folder.glob("checkpoints/step_*.ckpt")):
            assert running is not None
        for more in ((), ("overwrite=true",), (f"resume_from={folder}", "steps=2000", "checkpoint_every=2")):
            code, printed = train(folder, *more)
            (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
            assert code == 2 and f"run folder {folder} is in use by process {running.pid} on" in line, line
            assert "paths.run_dir=" in line
    finally:
        running.kill()
        running.communicate(60)


def test_a_new_run_in_a_finished_folder_is_refused_or_replaces_it_all(
    workspace: Path, train: Callable[..., Any]
) -> None:
    folder = workspace / "finished"
    assert train(folder)[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, printed = train(folder, "steps=4")
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 2 and "holds the results.json, checkpoints, export of another run" in line
    assert all(choice in line for choice in (f"resume_from={folder}", "paths.run_dir=", "overwrite=true"))
    code, printed = train(folder, "steps=4", "overwrite=true", "data.source=/not/there")
    assert code == 2 and "/not/there" in printed
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}, "it never began"
    assert train(folder, "steps=4", "checkpoint_every=100", "overwrite=true", "seed=3")[0] == 0
    assert [path.name for path in folder.glob("checkpoints/*")] == ["step_0000004.ckpt"]
    assert read_results(folder)["steps"] == 4 and {row["step"] for row in read_metrics(folder / "metrics.csv")} == set(
        "1234"
    )
    assert run_command(export, [str(folder), str(workspace / "shared")]) == 0
    assert read_manifest(workspace / "shared").step == 4, "not the older run, whose number is larger"


def test_a_short_run_has_a_last_checkpoint_and_can_be_extended(
    workspace: Path, train: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = workspace / "short"
    settings = ("checkpoint_every=100", "optim.lr=1e-3", "optim.min_lr=1e-4")
    assert train(folder, "steps=4", *settings)[0] == 0
    assert [path.name for path in folder.glob("checkpoints/*")] == ["step_0000004.ckpt"]
    code, printed = train(folder, "steps=4", f"resume_from={folder}", *settings)
    assert code == 0 and "the run is finished" in printed and "steps=<more>" in printed
    code, printed = train(folder, "steps=9", f"resume_from={folder}", *settings)
    assert code == 0 and "going on from step 4" in printed, printed
    assert "learning rate ended at 0.0001 and goes on at 0.000" in caplog.text, (
        "a cosine over 9 steps is higher after 4"
    )
    assert read_results(folder)["steps"] == 9 and read_manifest(folder / "export").step == 9
    steps = [int(row["step"]) for row in read_metrics(folder / "metrics.csv")]
    assert steps == list(range(1, 10))
    assert [path.name for path in folder.glob("checkpoints/*")] == ["step_0000009.ckpt"]


def test_the_newest_is_what_was_written_last(workspace: Path, train: Callable[..., Any]) -> None:
    """A run that goes on from an earlier checkpoint, of three, ends before the old ones' numbers."""
    folder = workspace / "earlier"
    assert train(folder, "callbacks.checkpoint.keep=3", "steps=9", "checkpoint_every=3")[0] == 0
    first = folder / "checkpoints" / "step_0000003.ckpt"
    names = sorted(path.name for path in folder.glob("checkpoints/*"))
    assert names == ["step_0000003.ckpt", "step_0000006.ckpt", "step_0000009.ckpt"]
    start(
        workspace / "outputs",
        *ONE,
        f"resume_from={first}",
        "callbacks.checkpoint.keep=3",
        "checkpoint_every=3",
        kill_at=4,
        kill_by=signal.SIGTERM,
        code=143,
    )
    kept = sorted(path.name for path in folder.glob("checkpoints/*"))
    assert kept == ["step_0000004.ckpt", "step_0000006.ckpt", "step_0000009.ckpt"], "the oldest went"
    assert run_command(export, [str(folder), str(workspace / "of_four")]) == 0
    assert read_manifest(workspace / "of_four").checkpoint == "step_0000004.ckpt"
    moved = workspace / "moved" / "demo_stage1" / "a copy"
    shutil.copytree(folder, moved, copy_function=shutil.copyfile)  # all times of change are now
    assert run_command(export, [str(moved), str(workspace / "of_copy")]) == 0
    assert read_manifest(workspace / "of_copy").checkpoint == "step_0000004.ckpt"


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_checkpoint_is_named_with_what_to_use_instead(
    workspace: Path, train: Callable[..., Any], damage: str
) -> None:
    folder = workspace / f"damaged_{damage}"
    assert train(folder, "callbacks.checkpoint.keep=2", "steps=6")[0] == 0
    newest, before = (folder / "checkpoints" / f"step_000000{step}.ckpt" for step in (6, 3))
    spoil(newest, damage)
    (folder / "results.json").unlink()
    code, printed = train(folder, "steps=6", f"resume_from={folder}")
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 2 and f"checkpoint {newest} is damaged" in line and f"resume_from={before}" in line, line
    assert run_command(export, [str(folder), str(workspace / "not")]) == 2
    spoil(before, damage)
    code, printed = train(folder, "steps=6", f"resume_from={folder}")
    assert code == 2 and "no complete one is beside it" in printed and "keep=2" in printed


def test_damaged_results_are_named(workspace: Path, train: Callable[..., Any]) -> None:
    folder = workspace / "results"
    assert train(folder, "steps=3")[0] == 0
    path = folder / "results.json"
    path.write_text(path.read_text().replace('"steps": 3.0', '"steps": 4.0'))
    code, printed = train(folder, "steps=3", f"resume_from={folder}")
    assert code == 2 and f"error: {path} is damaged" in printed and "Traceback" not in printed
    path.unlink()
    assert train(folder, "steps=3", f"resume_from={folder}")[0] == 0 and read_results(folder)["steps"] == 3


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-100])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_every_flipped_byte_is_reported_or_does_no_harm(tmp_path: Path) -> None:
    """Torch's own reader tells of none inside a tensor."""
    path = tmp_path / "step_0000001.ckpt"
    torch.save({"state_dict": {"a": torch.arange(40.0)}, "global_step": 1, "blip2_train": {"saves": 1}}, path)
    whole, refused = path.read_bytes(), 0
    for workspace in range(0, len(whole), 7):
        path.write_bytes(whole[:workspace] + bytes([whole[workspace] ^ 4]) + whole[workspace + 1 :])
        try:
            state = read_training_state(path)
        except Exception as error:
            assert type(error).__name__ == "CheckpointMismatch" and str(path) in str(error), (workspace, error)
            refused += 1
        else:
            assert torch.equal(state["state_dict"]["a"], torch.arange(40.0)) and state["global_step"] == 1, workspace
    assert refused > len(whole) // 7 // 4
