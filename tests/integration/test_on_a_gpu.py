"""A GPU computes what a CPU does: `bash run_scripts/test.sh -m gpu` on a machine that has one.

`BLIP2_TEST_DEVICE=cpu` runs the same without one, which shows no more than that the tests themselves are sound.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.command import main as benchmark
from demo_exports import write_exports
from gpu_device import DEVICE, MARKS, ON_GPU
from PIL import Image
from tiny_run import arguments
from training_process import TORCHRUN, losses, run_folder, samples, start, write_data

from blip2_train.checkpoints.export import read_export
from blip2_train.cli.doctor.command import main as doctor
from blip2_train.cli.terminal import run_command
from blip2_train.pretrained import load_pretrained

ONE, MANY, SHARDED = ("gpu", "ddp", "fsdp") if ON_GPU else ("cpu", "ddp_cpu", "fsdp_cpu")
NEW = ("-u",)
"""Starts a new interpreter: CUDA does not outlive a fork."""
EXACT = ("trainer.precision=32-true", "model.qformer.dropout=0", "model.qformer.attention_dropout=0")
"""What a GPU and a CPU can be compared in: each draws dropout in its own way."""
pytestmark = [*MARKS, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture
def images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(3)]


def train_losses(folder: Path) -> list[dict[str, float]]:
    """The three losses of stage 1 at each step."""
    rows = [row for kind, row in losses(folder).items() if kind.endswith("train")]
    return [{name: float(row[f"train/loss_{name}"]) for name in ("itc", "itm", "itg")} for row in rows]


def test_a_run_follows_that_of_a_cpu(workspace: Path) -> None:
    for name, trainer in (("here", ONE), ("cpu", "cpu")):
        start(workspace / name, f"trainer={trainer}", *EXACT, "data.num_workers=2", launcher=NEW)
    assert samples(workspace / "here") == samples(workspace / "cpu")
    for actual, expected in zip(train_losses(workspace / "here"), train_losses(workspace / "cpu"), strict=True):
        assert actual == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("trainer", [ONE, MANY])
def test_a_killed_run_goes_on(workspace: Path, trainer: str) -> None:
    """As it would have gone on; a GPU may add up in another order, so not to the last bit."""
    whole, killed = workspace / f"whole_{trainer}", workspace / f"killed_{trainer}"
    settings = (f"trainer={trainer}", "trainer.devices=1", *EXACT, "data.num_workers=2")
    start(whole, *settings, launcher=NEW)
    start(killed, *settings, kill_at=5, code=-9, launcher=NEW)
    start(killed, *settings, "resume_from=last", launcher=NEW)
    assert samples(killed) == samples(whole)
    for actual, expected in zip(train_losses(killed), train_losses(whole), strict=True):
        assert actual == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"] if ON_GPU else ["bf16-mixed"])
@pytest.mark.parametrize("tower", ["float16", "bfloat16"] if ON_GPU else ["bfloat16"])
def test_mixed_precision_with_a_16_bit_tower(workspace: Path, tmp_path: Path, precision: str, tower: str) -> None:
    mixed = (f"trainer={ONE}", f"trainer.precision={precision}", f"model.vision.dtype={tower}")
    folder = workspace / tmp_path.name
    start(folder, *mixed, "steps=30", "validate_every=30", "checkpoint_every=30", "optim.lr=3e-3", launcher=NEW)
    logged = train_losses(folder)
    assert len(logged) == 30 and np.isfinite([list(row.values()) for row in logged]).all()
    assert logged[-1]["itg"] < logged[0]["itg"]
    state, _ = read_export(run_folder(folder) / "export")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


@pytest.mark.parametrize("trainer", [ONE, MANY, SHARDED])
def test_stage_2(workspace: Path, tmp_path: Path, trainer: str) -> None:
    """From an export through hand-over, training, validation with captions, and export, under each trainer."""
    sizes = [
        one for one in arguments(workspace / tmp_path.name) if "num_queries" in one or not one.startswith("model.")
    ]
    settings = ["experiment=demo_stage2_opt", f"trainer={trainer}", "trainer.devices=1", "data.num_workers=0"]
    settings += ["model.language.dtype=float16", "model.vision.dtype=float16"] if ON_GPU else []
    settings += ["module.generation.max_new_tokens=4", "image_size=96", "init_from=" + stage_1_export(workspace)]
    launcher = NEW if trainer == ONE else TORCHRUN
    start(workspace / tmp_path.name, base=[*sizes, *settings], launcher=launcher)
    results = json.loads((run_folder(workspace / tmp_path.name) / "results.json").read_text())
    assert results["steps"] == 9 and 0 < results["val/loss_lm"] < 20 and results["val/cider"] >= 0


def stage_1_export(workspace: Path) -> str:
    """An export of the demo's own shape, made once."""
    folder = workspace / "stage1"
    if not folder.exists():
        sizes = [one for one in arguments(folder) if not one.startswith(("model.", "tokenizer=", "image_size="))]
        start(
            folder, base=[*sizes, f"trainer={ONE}", "data.num_workers=0", "model.qformer.num_queries=4"], launcher=NEW
        )
    return str(run_folder(folder) / "export")


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_captions_and_features(exports: dict[str, str], images: list[Image.Image], kind: str) -> None:
    (here, _), (cpu, _) = (load_pretrained(exports[kind], device=device) for device in (DEVICE, "cpu"))
    for beams in (1, 3):
        expected = cpu.caption(images, num_beams=beams, max_new_tokens=6)
        assert here.caption(images, num_beams=beams, max_new_tokens=6) == expected
    half, _ = load_pretrained(exports[kind], device=DEVICE, dtype=torch.bfloat16)
    assert len(half.caption(images, num_beams=3, max_new_tokens=6)) == len(images)


@pytest.mark.parametrize("recipe", ["demo_stage1", "demo_stage2_opt"])
def test_benchmark(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"device={DEVICE}", "batch_size=4", "steps=2", "new_tokens=3", "beams=2", f"json={tmp_path / 'o.json'}"]
    assert run_command(benchmark, [f"experiment={recipe}", *sizes]) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "o.json").read_text())
    assert ("compiled" in record["plans"]) == ON_GPU and record["ceiling_flops_per_second"] > 0
    for plan in (*record["plans"].values(), *record.get("generation", {"plans": {}})["plans"].values()):
        assert plan["step_seconds"] > 0 and 0 < plan["share_of_ceiling"] < 1, plan
        assert plan["peak_bytes"] > 0 or not ON_GPU  # on a CPU it counts what is kept for a backward pass


def test_doctor(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [*arguments(tmp_path / "out"), "data.num_workers=1", "measure=8", f"trainer={ONE}"]
    settings += [f"data.source={workspace / 'shards'}", f"tokenizer={workspace / 'tokenizer'}"]
    code = run_command(doctor, settings)
    captured = capsys.readouterr()
    assert code == 0 and "is ready" in captured.out, captured.out + captured.err
    shutil.rmtree(tmp_path)
