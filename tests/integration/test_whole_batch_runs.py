"""Runs that contrast whole batches: the same however a batch is divided, and resumed to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_run import arguments
from training_process import assert_same_run, losses, run_folder, start, write_data

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.evaluation.run_metrics import read_results
from blip2_train.training.sample_log import read_samples

SIZE = 8
PLAIN = ("data.num_workers=0", f"global_batch_size={SIZE}", "steps=3", "validate_every=3")
WHOLE = ("objective.contrast=batch", "model.qformer.dropout=0.0", "model.qformer.attention_dropout=0.0", *PLAIN)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("whole"))


def finish(folder: Path, *overrides: str) -> dict[str, float]:
    """Results of a run in this process."""
    assert run_command(main, [*arguments(folder), *WHOLE, *overrides]) == 0
    return read_results(run_folder(folder))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (newest,) = (run_folder(folder) / "checkpoints").glob("*.ckpt")
    state: dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["state_dict"]
    return state


def assert_same_training(folder: Path, expected: Path) -> None:
    """Losses and weights as of the other run, but for rounding."""
    numbers, others = losses(folder), losses(expected)
    for kind in others:
        for name in (name for name in others[kind] if "loss" in name or "itm" in name or "itc" in name):
            assert float(numbers[kind][name]) == pytest.approx(float(others[kind][name]), rel=2e-4, abs=1e-5), name
    state = weights(folder)
    for name, weight in weights(expected).items():
        torch.testing.assert_close(state[name], weight, rtol=1e-3, atol=2e-5)


@pytest.fixture(scope="module", params=["frozen", "trained"])
def undivided_run(workspace: Path, request: pytest.FixtureRequest) -> tuple[Path, Sequence[str]]:
    """Output folder of a run without micro-batches, and what its tower is."""
    tower = () if request.param == "frozen" else ("model.vision.frozen=false",)
    start(workspace / request.param, *WHOLE, *tower, "accumulate=1", other=True)
    return workspace / request.param, tower


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu", "fsdp_cpu"])
def test_other_micro_batches_train_the_same(
    workspace: Path, undivided_run: tuple[Path, Sequence[str]], trainer: str
) -> None:
    """On one process and on two, whose model is sharded or not."""
    expected, tower = undivided_run
    folder = workspace / f"{expected.name}_{trainer}"
    if trainer == "cpu":
        start(folder, *WHOLE, *tower, "accumulate=4")
        assert read_results(run_folder(folder))["chance/loss_itc"] == pytest.approx(math.log(SIZE))
    else:
        start(folder, *WHOLE, *tower, "accumulate=2", f"trainer={trainer}", "trainer.devices=2", processes=2)
    assert_same_training(folder, expected)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_bit(workspace: Path) -> None:
    """With dropout, and a reader in another process."""
    whole = ("objective.contrast=batch", "accumulate=2", "data.num_workers=1")
    start(workspace / "uninterrupted", *whole, other=True)
    start(workspace / "killed", *whole, kill_at=7, code=-9)
    assert "going on from step 6" in start(workspace / "killed", *whole, "resume_from=last")
    assert_same_run(workspace / "uninterrupted", workspace / "killed")


def test_the_run_notes_what_it_contrasts(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))
    run = [*arguments(workspace / "notes"), *PLAIN, "steps=2", "validate_every=null", "accumulate=4"]
    assert run_command(main, run) == 0
    assert "ITC contrasts 2 pairs, not the whole batch (objective.contrast=batch: all 8)" in capsys.readouterr().out


def test_what_is_not_finite_is_located_in_its_micro_batch(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contrast spreads it to all, but the samples that are named are those of the last."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    poison = "callbacks.poison={_target_: training_child.PoisonFollowing, step: 2, micro_batch: 3}"
    log = "callbacks.samples={_target_: blip2_train.training.sample_log.SampleLog, folder: '${paths.run_dir}'}"
    finish(workspace / "poisoned", "accumulate=4", poison, log)
    run = run_folder(workspace / "poisoned")
    (finding,) = map(json.loads, (run / "non_finite.jsonl").read_text().splitlines())
    assert (finding["step"], finding["what"], finding["where"]) == (2, "input", "pixel_values")
    assert finding["sample_ids"] == read_samples(run / "samples.jsonl")[2][6:8]
