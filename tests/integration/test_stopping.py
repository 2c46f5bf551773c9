"""A run that is asked to stop is saved at that step; one that meets a number that is not finite leaves the step out."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import arguments
from training_process import assert_same_run, losses, run_folder, start, write_data

from blip2_train.checkpoints.training_checkpoints import read_training_state
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main

POISON = "callbacks.poison={{_target_: training_child.Poison, steps: {}}}"
RUN = ("validate_every=3", "checkpoint_every=4", "data.num_workers=0", POISON.format("[4, 8]"))
"""Two steps are skipped, one before and one after the stop."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("stopping"))


@pytest.fixture(scope="module")
def whole(workspace: Path) -> Path:
    """A run that nobody stopped."""
    start(workspace / "whole", *RUN, "callbacks.checkpoint.keep=9", "checkpoint_every=1", other=True)
    return workspace / "whole"


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (run_folder(folder) / "checkpoints").iterdir())


def skipped(folder: Path) -> dict[str, str]:
    """Logged number of skipped steps, by step."""
    rows = {kind.split()[0]: row for kind, row in losses(folder).items()}
    return {step: row["train/skipped_steps"] for step, row in rows.items() if "train/skipped_steps" in row}


def test_a_step_that_is_not_finite_is_skipped_counted_and_written_down(whole: Path) -> None:
    records = [json.loads(line) for line in (run_folder(whole) / "non_finite.jsonl").read_text().splitlines()]
    assert [(line["step"], line["what"], line["where"]) for line in records] == [
        (step, "input", "pixel_values") for step in (4, 8)
    ]
    trained = {int(step): ids for step, ids in map(json.loads, (whole / "samples.0.jsonl").read_text().splitlines())}
    assert [line["sample_ids"] for line in records] == [trained[4], trained[8]]
    assert skipped(whole) == {"4": "1", "8": "2"}
    folder = run_folder(whole) / "checkpoints"
    states = {n: read_training_state(folder / f"step_{n:07d}.ckpt") for n in (3, 4, 5)}
    for part in ("state_dict", "optimizer_states"):
        flat = {n: torch.utils._pytree.tree_leaves(state[part]) for n, state in states.items()}
        tensors = {n: [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)] for n, leaves in flat.items()}
        same = [[torch.equal(a, b) for a, b in zip(tensors[n], tensors[n + 1], strict=True)] for n in (3, 4)]
        assert all(same[0]) and not all(same[1]), part


@pytest.mark.slow
def test_stopped_by_signals_and_resumed_equals_whole(workspace: Path, whole: Path) -> None:
    """First inside the run, then where a validation follows the step."""
    folder = workspace / "stopped"
    printed = start(folder, *RUN, "data.num_workers=2", kill_at=5, kill_by=signal.SIGUSR1, code=138)
    assert (
        "stopped at step 5" in printed and f"resume_from={run_folder(folder)}" in printed and "Traceback" not in printed
    ), printed
    assert checkpoints(folder) == ["step_0000005.ckpt"]
    again = start(folder, *RUN, "resume_from=last", kill_at=6, kill_by=signal.SIGTERM, code=143)
    assert "going on from step 5" in again and checkpoints(folder) == ["step_0000006.ckpt"]
    assert "going on from step 6" in start(folder, *RUN, "resume_from=last")
    assert_same_run(whole, folder)
    assert skipped(folder) == {"4": "1", "8": "2"}


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_skip_the_same(workspace: Path) -> None:
    start(workspace / "whole_two", *RUN, processes=2, other=True)
    folder = workspace / "stopped_two"
    start(folder, *RUN, processes=2, kill_at=5, kill_by=signal.SIGUSR1, code=138)
    assert checkpoints(folder) == ["step_0000005.ckpt"]
    assert "going on from step 5" in start(folder, *RUN, "resume_from=last", processes=2)
    assert_same_run(workspace / "whole_two", folder, ranks=2)
    assert skipped(folder) == skipped(workspace / "whole_two") == {"4": "1", "8": "2"}


@pytest.fixture
def refusal(workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs in this process, below `workspace`, what must end with exit status 2; the line that says why."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))

    def run(name: str, *overrides: str) -> str:
        folder = workspace / name
        run = f"paths.run_dir={folder}"
        assert run_command(main, [*arguments(folder), run, "data.num_workers=0", *overrides]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_several_in_a_row_end_the_run(refusal: Callable[..., str]) -> None:
    line = refusal("in_a_row", "callbacks.non_finite.stop_after=2", POISON.format("[2, 4, 5, 6]"))
    assert "2 steps in a row, until step 5" in line and "input pixel_values" in line and "non_finite.jsonl" in line


@pytest.mark.parametrize(
    ("gradient", "words"), [(False, "output of text_projection"), (True, "gradient at text_projection.weight")]
)
def test_the_first_bad_module_is_named(refusal: Callable[..., str], gradient: bool, words: str) -> None:
    spoil = f"{{_target_: training_child.Spoil, parameter: text_projection.weight, gradient: {gradient}}}"
    line = refusal(f"spoilt_{gradient}", f"callbacks.spoil={spoil}", "accumulate=2")
    assert f"begins with {words}," in line and "5 steps in a row, until step 7" in line


def test_a_disk_that_will_be_full_is_refused_before_anything_is_written(
    workspace: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    line = refusal("refused")
    assert "1 newest, 0 best and one more" in line and "output_dir" in line and not (workspace / "refused").exists()


def test_output_that_is_read_only_is_one_line(
    workspace: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def read_only(path: Any, *arguments: Any, **options: Any) -> None:
        if str(path).startswith(str(workspace / "read_only")):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", read_only)
    line = refusal("read_only")
    assert "Read-only file system" in line and str(workspace / "read_only") in line and "paths.output_dir=" in line


def test_a_disk_that_is_full_leaves_the_checkpoint_before(
    workspace: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def until_full(value: Any, file: Any) -> None:
        if value["global_step"] == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(value, file)

    monkeypatch.setattr(torch, "save", until_full)
    line = refusal("full")
    assert "step_0000006.ckpt cannot be written: No space left on device" in line and "resume_from=" in line
    (left,) = (workspace / "full" / "checkpoints").iterdir()
    assert left.name == "step_0000003.ckpt" and read_training_state(left)["global_step"] == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("accumulate=1",), "of 4 samples (CUDA out of memory. Tried to allocate 2.00 GiB): pass accumulate=2"),
        (("accumulate=2",), "for micro-batches of 2 samples"),
        (("accumulate=4",), "for a step of one sample"),
        (("accumulate=1", "validate_every=3"), "for a validation"),
    ],
)
def test_too_little_memory_is_one_line_with_the_setting(
    refusal: Callable[..., str], settings: tuple[str, ...], words: str
) -> None:
    training = "validate_every=3" not in settings
    out = f"callbacks.out={{_target_: training_child.OutOfMemory, training: {training}}}"
    line = refusal(f"memory_{'_'.join(settings)}".replace("=", ""), out, *settings)
    assert words in line, line
    if training and "accumulate=4" not in settings:
        assert "the step stays 4 samples" in line and "trainer=fsdp" in line and "resume_from=last" in line
    elif not training:
        assert "lower data.eval_batch_size" in line


def test_files_of_shards_are_closed_at_the_end(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        given = [*arguments(workspace / "closed"), "data.num_workers=0", "logger=csv", "steps=2", "validate_every=2"]
        assert run_command(main, given) == 0
        gc.collect()
    assert [str(one.message) for one in seen if issubclass(one.category, ResourceWarning)] == []
    descriptors = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert [name for name in descriptors if str(workspace) in name] == []
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(workspace / "shards") not in mapped
