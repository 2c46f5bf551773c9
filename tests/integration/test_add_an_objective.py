"""The worked example of docs/add-an-objective.md: its files are written from the page, tested, and trained with."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from page_code import importable_example, run_page_tests
from reference_cases import SEED, assert_equal, double_model, global_batch, gradients
from safetensors.torch import load_file
from shard_files import write_shards, write_tokenizer
from tiny import image_text_batch
from tiny_run import TINY
from whole_batch_work import parts_of, two_passes

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.evaluation.run_metrics import read_results

FILES = ["siglip.py", "my_configs/objective/siglip.yaml", "test_siglip.py"]


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in a folder that Python imports from."""
    importable_example(root / "docs/add-an-objective.md", tmp_path, FILES, monkeypatch)
    return tmp_path


def test_the_tests_of_the_page_pass(folder: Path) -> None:
    run_page_tests("test_siglip", 3)


def test_the_whole_objective_equals_a_loop_over_pairs(folder: Path) -> None:
    """With a real model in float64, features and all."""
    objective = import_module("siglip").SigmoidObjective(bias=-2.0).double()
    model, batch = double_model(), image_text_batch(3)
    batch.pixel_values = batch.pixel_values.double()
    output = objective(model.eval(), batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = model.encode_image(batch.pixel_values).image_features
        texts = model.encode_text(batch.input_ids, batch.attention_mask)
    total = 0.0
    for row in range(3):
        for column in range(3):
            best = max(float(query @ texts[column]) for query in images[row])
            sign = 1 if row == column else -1
            total += math.log(1 + math.exp(-sign * (best / model.temperature.item() - 2.0)))
    assert output.terms["itc"].item() == pytest.approx(total / 3, rel=1e-12)
    output.total.backward()
    assert objective.bias.grad is not None


def test_it_contrasts_whole_batches_of_micro_batches(folder: Path) -> None:
    """Its own parameter included."""
    made = import_module("siglip").SigmoidObjective
    one, two = (made(bias=-2.0, gather="full").double() for _ in range(2))
    models, batch = (double_model(), double_model()), global_batch(6, "distinct")
    output = one(models[0], batch, torch.Generator().manual_seed(SEED))
    output.total.backward()
    assert_equal(two_passes(models[1], two, parts_of(batch, 3)), (output.terms, gradients(models[0])))
    assert two.bias.grad.item() == pytest.approx(one.bias.grad.item(), rel=1e-12)


def test_the_command_trains_resumes_and_exports(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    write_shards(folder / "shards", [9, 4, 13])
    common = [
        f"--config-dir={folder / 'my_configs'}", *TINY, "objective=siglip", "data.num_workers=0", "steps=2",
        "validate_every=2", "checkpoint_every=1", "callbacks.checkpoint.keep=2",
        f"data.source={folder / 'shards'}", f"tokenizer={write_tokenizer(folder / 'tokenizer')}",
    ]  # fmt: skip
    assert run_command(train, [*common, f"paths.run_dir={folder / 'run'}"]) == 0, capsys.readouterr()
    results = read_results(folder / "run")
    assert results["steps"] == 2 and results["val/pairs"] == 2
    assert results["chance/loss_itc"] == pytest.approx(math.log(4) + 3 * math.log(4 / 3))
    assert results["chance/val_loss_itc"] == pytest.approx(2 * math.log(2))
    last = torch.load(folder / "run/checkpoints/step_0000002.ckpt", weights_only=True)["state_dict"]
    assert last["objective.bias"].item() != -10.0
    weights = load_file(folder / "run/export/model.safetensors")
    assert "query_tokens" in weights and not weights.keys() & {"objective.bias", "bias"}

    (folder / "run/results.json").unlink()
    (folder / "run/checkpoints/step_0000002.ckpt").unlink()
    assert run_command(train, [*common, f"resume_from={folder / 'run'}"]) == 0, capsys.readouterr()
    again: Any = torch.load(folder / "run/checkpoints/step_0000002.ckpt", weights_only=True)["state_dict"]
    assert again.keys() == last.keys() and all(torch.equal(again[name], last[name]) for name in last)
    same = load_file(folder / "run/export/model.safetensors")
    assert all(torch.equal(same[name], weights[name]) for name in weights)
