"""Runs from stored features: the losses are those of the same crops, and nothing else of a run changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from feature_files import write_noise_shards
from shard_files import write_tokenizer

from blip2_train.checkpoints.export import read_export
from blip2_train.checkpoints.training_checkpoints import read_training_state
from blip2_train.cli.features import storing
from blip2_train.cli.features.command import main as features_command
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.run import build, train
from blip2_train.config.compose import compose
from blip2_train.config.run_data import make_data
from blip2_train.data.features.image_keys import image_key
from blip2_train.data.features.writing import CropRule, crop_generator
from blip2_train.errors import CheckpointMismatch
from blip2_train.types import Batch

TINY = (
    "experiment=demo_stage1",
    "data=shards",
    "trainer=cpu",
    "steps=6",
    "global_batch_size=4",
    "image_size=24",
    "max_text_length=14",
    "validate_every=6",
    "checkpoint_every=3",
    "log_every=1",
    "optim.warmup_steps=2",
    "data.holdout=3",
    "data.num_workers=0",
    "model.qformer.weights=random",
    "model.qformer.hidden_size=16",
    "model.qformer.num_layers=2",
    "model.qformer.num_heads=2",
    "model.qformer.intermediate_size=32",
    "model.qformer.num_queries=4",
    "callbacks.checkpoint.keep=9",
)
"""A run with the tower that ships with the package."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a tokenizer, and features of 2 crops in 32, 16 and 8 bits."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(storing, "cores", lambda: 1)  # as threads would round otherwise
        write_noise_shards(folder / "shards", [17, 14])
        write_tokenizer(folder / "tokenizer")
        for bits in (32, 16, 8):
            features_command(
                [*recipe(folder), f"output={folder / str(bits)}", "crops=2", f"bits={bits}", "batch_size=1"]
            )
    return folder


@pytest.fixture(autouse=True)
def cache(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(world / "cache"))


def recipe(world: Path, *more: str) -> list[str]:
    paths = [
        f"tokenizer={world / 'tokenizer'}",
        f"data.source={world / 'shards'}",
        f"paths.output_dir={world / 'out'}",
    ]
    return [*TINY, *paths, *more]


def losses(world: Path, bits: int | None, dropout: float = 0.0) -> list[dict[str, float]]:
    """The losses of six steps from stored features, or (None) with the tower on the same crops of the same samples."""
    stored = [] if bits is None else [f"data.features={world / str(bits)}"]
    run = build(compose(recipe(world, *stored, f"model.qformer.dropout={dropout}")))
    run.data.prepare_data()
    run.data.setup()
    if bits is None:
        use_crops(run.data, crops=2)
    model, objective = run.module.model.train(), run.module.objective
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    result = []
    for step, batch in enumerate(run.data.train_dataloader()):
        torch.manual_seed(step)
        output = objective(model, batch, torch.Generator().manual_seed(step))
        output.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        result.append({name: value.item() for name, value in output.terms.items()})
    return result


def use_crops(data: Any, crops: int) -> None:
    """Let a data module read images, and draw one of a few fixed crops of each by the rule of stored features."""
    rule: CropRule
    rule, _ = data.crop_rule(crops)

    def read_image(content: bytes, generator: torch.Generator, orientation: int | None) -> torch.Tensor:
        drawn = int(torch.rand((), generator=generator, dtype=torch.float64).item() * crops)
        key = image_key(content, orientation)
        return rule.train.from_file(content, crop_generator(rule.seed, key, drawn), orientation)

    data._stream._read_image = read_image


def distance(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    return max(abs(a[name] - b[name]) for a, b in zip(one, other, strict=True) for name in a)


def test_losses_are_those_of_the_tower_on_the_same_crops(world: Path) -> None:
    with_tower = losses(world, None)
    assert len(with_tower) == 6 and distance(with_tower, losses(world, 32)) < 2e-6
    assert distance(with_tower, losses(world, 16)) < 1e-3
    assert 1e-7 < distance(with_tower, losses(world, 8)) < 5e-2


def test_features_in_as_many_bits_as_the_tower_s_are_its_own(world: Path) -> None:
    """To the bit, where the tower computes one image at a time, as it did when they were stored."""
    config = compose(recipe(world))
    tower = build(config).module.model.vision_model
    plain = make_data(config)
    stored = make_data(config, features=str(world / "32"))
    for data in (plain, stored):
        data.prepare_data()
        data.setup()
    use_crops(plain, crops=2)
    for one, other in zip(plain.train_dataloader(), stored.train_dataloader(), strict=True):
        assert torch.equal(torch.cat([tower(image[None]) for image in one.pixel_values]), other.pixel_values[:, 0])
    for one, other in zip(plain.val_dataloader(), stored.val_dataloader(), strict=True):
        assert torch.equal(torch.cat([tower(image[None]) for image in one.pixel_values]), other.pixel_values[:, 0])


def test_a_run_writes_what_a_run_with_the_tower_writes(world: Path) -> None:
    results, manifests = [], []
    for name, more in (("plain", []), ("stored", [f"data.features={world / '32'}"])):
        folder = world / "runs" / name
        results.append(train(compose(recipe(world, *more, f"paths.run_dir={folder}"))))
        state, manifest = read_export(folder / "export")
        manifests.append((sorted(state), manifest.architecture, manifest.processor, manifest.frozen_fingerprint))
        checkpoint = read_training_state(folder / "checkpoints" / "step_0000006.ckpt")
        assert checkpoint["blip2_train"]["frozen_fingerprint"] == manifest.frozen_fingerprint
    assert manifests[0] == manifests[1] and len(manifests[0][3]) == 64
    assert results[0].keys() == results[1].keys() and results[0]["val/loss_itm"] > 0
    assert results[0]["trainable_parameters"] == results[1]["trainable_parameters"]


def test_a_run_that_goes_on_is_the_uninterrupted_one(world: Path) -> None:
    stored, whole, resumed = f"data.features={world / '16'}", world / "runs" / "whole", world / "runs" / "resumed"
    train(compose(recipe(world, stored, f"paths.run_dir={whole}")))
    shutil.copytree(whole, resumed)
    (resumed / "checkpoints" / "step_0000006.ckpt").unlink()
    checkpoint = resumed / "checkpoints" / "step_0000003.ckpt"
    train(compose(recipe(world, stored, f"paths.run_dir={resumed}")), checkpoint)
    states = [read_training_state(run / "checkpoints" / "step_0000006.ckpt")["state_dict"] for run in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with pytest.raises(CheckpointMismatch, match=r"data\.features was 2 crops"):
        train(compose(recipe(world, f"paths.run_dir={resumed}")), checkpoint)


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_stage_2_reads_the_features_that_stage_1_read(world: Path, family: str) -> None:
    first, second = world / "runs" / f"first_{family}", world / "runs" / f"second_{family}"
    stored = f"data.features={world / '16'}"
    train(compose(recipe(world, stored, f"paths.run_dir={first}")))
    more = (f"init_from={first}", "module.generation.max_new_tokens=4", "module.generation.num_beams=2")
    arguments = recipe(world, f"experiment=demo_stage2_{family}", stored, *more, f"paths.run_dir={second}")
    results = train(compose(arguments))
    assert results["val/pictures"] == 3 and results["val/loss_lm"] > 0
    lines = [json.loads(line) for line in (second / "captions.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and not (second / "captions.png").exists()
    state, manifest = read_export(second / "export")
    plain = build(compose([one for one in arguments if one != stored]))
    assert manifest.frozen_fingerprint == plain.module.frozen_fingerprint()
    assert not any(name.startswith("vision_model.") for name in state)


def test_the_tower_gives_up_its_weights(world: Path) -> None:
    run = build(compose(recipe(world, f"data.features={world / '16'}")))
    tower = run.module.model.vision_model
    assert not list(tower.parameters()) and not list(tower.buffers()) and run.module.model.frozen_dtype == torch.float32
    batch: Batch = next(iter(_loaded(run.data)))
    assert torch.equal(tower(batch.pixel_values), batch.pixel_values[:, 0])


def _loaded(data: Any) -> Any:
    data.prepare_data()
    data.setup()
    return data.train_dataloader()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.vision.frozen=false"], "of a frozen vision tower, but this one trains"),
        (["image_size=36"], "were written with image_size 24, here it is 36"),
        (["data.flip=0.0"], "were written with flip 0.5, here it is 0.0"),
        (["model.vision.dropped_blocks=2"], "its dropped_blocks is 1, that of this model 2"),
        (["model.vision.weights=random"], "its weights (SHA-256) is"),
        (["model.vision.dtype=bfloat16"], "its dtype is float32, that of this model bfloat16"),
        (["trainer.vision_quantization=int8"], "data.features does not go with trainer.vision_quantization=int8"),
        (["data.features=nowhere"], "nowhere holds no finished features (there is no such folder)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    world: Path, changes: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from blip2_train.cli.train.command import main

    arguments = recipe(world, f"data.features={world / '16'}", *changes, f"paths.run_dir={world / 'refused'}")
    assert run_command(main, arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line and not (world / "refused").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.vision.frozen=false"], "the recipe trains its vision tower"),
        (["model.vision.weights=random"], "has random weights"),
        (["trainer.vision_quantization=int8"], "features.py does not go with trainer.vision_quantization=int8"),
        (["bits=7"], "bits must be 8, 16 or 32"),
        (["output=s3://bucket/features"], "give a folder"),
        (["crops=-1"], "crops must be 0 or more"),
        (["crops=0", "data.holdout=0", "validate_every=null"], "nothing is left to store"),
        (["crop=2"], "did you mean 'crops'"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(
    world: Path, tmp_path: Path, changes: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = [] if any(change.startswith("output") for change in changes) else [f"output={tmp_path / 'f'}"]
    assert run_command(features_command, recipe(world, *output, *changes)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line and not (tmp_path / "f" / "index.json").exists()


def test_what_it_takes_and_saves_is_printed_before(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features_command([*recipe(world, "steps=100"), f"output={tmp_path / 'f'}", "crops=3"])
    printed = capsys.readouterr().out
    assert "87 crops of 31 images, 5 x 128 numbers of 16 bits: 1 kB each" in printed
    assert "the recipe's 400 samples each run the tower; stored once for 87: 4.6 times less work" in printed
    assert f"train with data.features={tmp_path / 'f'}" in printed
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    assert run_command(features_command, [*recipe(world), f"output={tmp_path / 'g'}"]) == 2
    assert "has too little room" in capsys.readouterr().err
    assert not list((tmp_path / "g").glob("*.tar"))
