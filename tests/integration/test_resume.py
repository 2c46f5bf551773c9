"""A killed run, started again, ends with the losses, samples and weights of a run that was never killed."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest
from shard_files import write_shards
from tiny_run import arguments
from training_process import assert_same_run, run_folder, samples, start, write_data

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.system.folder_lock import LOCK

KILL = 7


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def uninterrupted(workspace: Path) -> Path:
    """Output folder of a run that was never killed."""
    start(workspace / "whole", "data.num_workers=0", other=True)
    return workspace / "whole"


@pytest.fixture(scope="module")
def stopped(workspace: Path) -> Path:
    """Output folder of a run that was killed and not resumed."""
    start(workspace / "stopped", "data.num_workers=0", kill_at=KILL, code=-signal.SIGKILL)
    return workspace / "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(workspace: Path, uninterrupted: Path, workers: int) -> None:
    folder = workspace / f"killed_{workers}"
    start(folder, f"data.num_workers={workers}", kill_at=KILL, code=-signal.SIGKILL)
    assert sorted(p.name for p in (run_folder(folder) / "checkpoints").iterdir()) == ["step_0000006.ckpt"]
    printed = start(folder, f"data.num_workers={workers}", "resume_from=last")
    assert "going on from step 6" in printed
    assert_same_run(uninterrupted, folder)


@pytest.mark.slow
def test_stage_2_killed_and_resumed(workspace: Path) -> None:
    stage_2 = (
        "experiment=demo_stage2_t5",  # its prefixes are cut at random
        "init_from=null",
        "data.num_workers=0",
        "module.generation.max_new_tokens=4",
        "model.qformer.dropout=0.1",
    )
    start(workspace / "whole_stage_2", *stage_2, other=True)
    folder = workspace / "killed_stage_2"
    start(folder, *stage_2, kill_at=KILL, code=-signal.SIGKILL)
    assert "going on from step 6" in start(folder, *stage_2, "resume_from=last")
    assert_same_run(workspace / "whole_stage_2", folder)
    shown = [
        (run_folder(workspace / name) / "captions.jsonl").read_text() for name in ("whole_stage_2", "killed_stage_2")
    ]
    assert shown[0] == shown[1] and len(shown[0].splitlines()) == 2


@pytest.mark.slow
def test_two_processes_killed_and_resumed(workspace: Path, uninterrupted: Path) -> None:
    start(workspace / "whole_two", "data.num_workers=0", processes=2, other=True)
    folder = workspace / "killed_two"
    start(folder, "data.num_workers=0", processes=2, kill_at=KILL, code=-signal.SIGKILL)
    start(folder, "data.num_workers=0", "resume_from=last", processes=2)
    assert_same_run(workspace / "whole_two", folder, ranks=2)
    assert {k: sorted(v) for k, v in samples(folder, 2).items()} == {
        k: sorted(v) for k, v in samples(uninterrupted).items()
    }


def test_another_number_of_processes_goes_on_with_the_same_samples(
    workspace: Path, uninterrupted: Path, stopped: Path
) -> None:
    folder = workspace / "elastic"
    shutil.copytree(stopped, folder)
    start(folder, "data.num_workers=0", "resume_from=last", processes=2)
    both = samples(folder, 1) | samples(folder, 2)
    resumed = {step: sorted(ids) for step, ids in both.items() if step > 6}
    expected = {step: sorted(ids) for step, ids in samples(uninterrupted).items() if step > 6}
    assert {step: sorted(set(ids)) for step, ids in resumed.items()} == expected


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=7", "seed"),
        ("steps=12", "steps=9"),
        ("global_batch_size=2", "global_batch_size"),
        ("data.source={workspace}/other", "shards|samples|source"),
        ("model.qformer.num_queries=5", "query_tokens"),
        ("model.qformer.frozen=all", r"tensors that its optimiser updates are \d+ \(decay\), .* those of this run"),
        ("optim.decay_embeddings=false", "tensors that its optimiser updates"),
        ("optim.weight_decay=0.1", r"optim\.weight_decay=0\.05, this run has 0\.1"),
        ("optim.betas=[0.9,0.95]", r"optim\.betas=.*0\.98.*, this run has"),
    ],
)
def test_a_changed_run_is_refused_with_the_reason(
    workspace: Path, stopped: Path, override: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(workspace / "other", [9, 5, 13])
    overrides = [override.format(workspace=workspace), f"resume_from={run_folder(stopped)}"]
    before = contents(stopped)
    code = run_command(main, [*arguments(stopped), *overrides])
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert code == 2 and line.startswith("error: ") and re.search(words, line), line
    assert before == contents(stopped), "a refused run changed the run folder"


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a folder but locks, which a killed run leaves and the next one takes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def test_a_finished_run_is_left_alone(uninterrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(uninterrupted)
    assert run_command(main, [*arguments(uninterrupted), "resume_from=last"]) == 0
    assert "finished" in capsys.readouterr().out
    assert before == contents(uninterrupted)
