"""A run with compiled passes writes, resumes and exports what a run without them does."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from training_process import assert_same_run, run_folder, start, write_data

from blip2_train.training.non_finite import RECORD

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COMPILED = "callbacks.compile={_target_: blip2_train.training.compiling.CompilePasses, backend: eager}"
"""The option `trainer.compile=true` adds the same, whose kernels a compiler of C++ would have to make."""
SETTINGS = ("data.num_workers=0", "model.qformer.dropout=0.1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("compiled"))


def test_killed_and_resumed_equals_a_run_that_is_not_compiled(workspace: Path) -> None:
    plain, folder = workspace / "plain", workspace / "killed"
    start(plain, *SETTINGS, other=True)
    start(folder, *SETTINGS, COMPILED, kill_at=7, code=-signal.SIGKILL)
    (checkpoint,) = (run_folder(folder) / "checkpoints").iterdir()
    names = torch.load(checkpoint, weights_only=True)["state_dict"].keys()
    assert names and not [name for name in names if "_orig_mod" in name]
    start(folder, *SETTINGS, COMPILED, "resume_from=last")
    assert_same_run(plain, folder)


def test_the_module_that_is_not_finite_is_named_nevertheless(workspace: Path) -> None:
    parameter = "qformer.encoder.layer.1.attention.output.dense.weight"
    broken = f"callbacks.broken={{_target_: training_child.Spoil, parameter: {parameter}, gradient: false}}"
    start(workspace / "broken", *SETTINGS, COMPILED, broken, "callbacks.non_finite.stop_after=2", code=2)
    record = (run_folder(workspace / "broken") / RECORD).read_text().splitlines()[0]
    assert json.loads(record)["where"] == parameter.removesuffix(".weight")
