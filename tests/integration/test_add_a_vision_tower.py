"""The worked example of docs/add-a-vision-tower.md: its files are written from the page, tested, and trained with."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from page_code import importable_example, run_page_tests
from safetensors.torch import load_file, save_file
from shard_files import write_shards, write_tokenizer
from tiny_run import TINY

from blip2_train.checkpoints.convert.huggingface_tower import describe_tower
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.query_attention import query_attention
from blip2_train.pretrained import load_pretrained

FILES = ["convnext_tower.py", "my_configs/model/vision_model/convnext.yaml", "test_convnext_tower.py"]
SIZES = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in a folder that Python imports from, with weights of the tower, shards and a tokenizer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    importable_example(root / "docs/add-a-vision-tower.md", tmp_path, FILES, monkeypatch)
    module = import_module("convnext_tower")
    config = module.ConvNextConfig(name="convnext_atto", weights="random", image_size=64, **SIZES)
    save_file(config.own_network().state_dict(), tmp_path / "convnext.safetensors")
    write_shards(tmp_path / "shards", [9, 4, 13])
    write_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def arguments(folder: Path, run: str, *more: str) -> list[str]:
    """Of a tiny run of the command, with the tower of the page."""
    others = [one for one in TINY if not one.startswith(("model.vision.", "image_size=", "steps=", "validate_every="))]
    return [
        f"--config-dir={folder / 'my_configs'}", *others, "model/vision_model=convnext", "image_size=64", "steps=2",
        "validate_every=2", "data.num_workers=0", f"data.source={folder / 'shards'}",
        f"tokenizer={folder / 'tokenizer'}", f"paths.run_dir={folder / run}",
        f"model.vision.weights={folder / 'convnext.safetensors'}",
        "model.vision.depths=[1,1,1,1]",
        "model.vision.dims=[8,16,24,32]", *more,
    ]  # fmt: skip


def test_the_tests_of_the_page_pass(folder: Path) -> None:
    run_page_tests("test_convnext_tower", 2)


def test_a_frozen_one_trains_and_its_export_is_opened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(train, arguments(folder, "run")) == 0, capsys.readouterr()
    export = folder / "run/export"
    description = json.loads((export / "manifest.json").read_text())["architecture"]["vision"]
    assert description["family"] == "convnext_tower.ConvNextConfig"
    model, _ = load_pretrained(str(export))
    weights = load_file(folder / "convnext.safetensors")
    tower = model.network.vision_model
    assert all(torch.equal(tower.tower.state_dict()[name], weights[name]) for name in weights)
    maps = query_attention(model.network, torch.randn(1, 3, 64, 64))
    assert maps.shape[2:] == (2, 2)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(maps.shape[:2]))
    with pytest.raises(CheckpointMismatch, match=r"of the family convnext_tower\.ConvNextConfig"):
        describe_tower(tower)

    again = [*arguments(folder, "again"), f"init_from={export}"]
    assert run_command(train, again) == 0, capsys.readouterr()
    timm_tower = [one for one in again if not one.startswith(("model/vision_model=", "model.vision."))]
    assert run_command(train, [*timm_tower, f"paths.run_dir={folder / 'other'}"]) == 2
    assert "has a vision tower of convnext_tower.ConvNextConfig" in " ".join(capsys.readouterr().err.split())


def test_a_trained_one_is_in_the_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(train, arguments(folder, "run", "model.vision.frozen=false")) == 0, capsys.readouterr()
    before, after = load_file(folder / "convnext.safetensors"), load_file(folder / "run/export/model.safetensors")
    names = {f"vision_model.tower.{name}" for name in before}
    assert names == {name for name in after if name.startswith("vision_model.")}
    assert any(not torch.equal(after[f"vision_model.tower.{name}"], before[name]) for name in before)
    load_pretrained(str(folder / "run/export"))
    assert run_command(train, arguments(folder, "no", "model.vision.frozen=false", "optim.layer_decay=0.9")) == 2
    assert "has no layer-wise learning rates" in " ".join(capsys.readouterr().err.split())


def test_a_family_that_is_not_imported_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name alone: nothing in an export imports anything."""
    assert run_command(train, arguments(folder, "run")) == 0, capsys.readouterr()
    manifest = folder / "run/export/manifest.json"
    content = json.loads(manifest.read_text())
    del content["crc32"]
    content["architecture"]["vision"]["family"] = "antigravity.Tower"
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointMismatch, match=r"family antigravity\.Tower.*import the module that defines it"):
        load_pretrained(str(folder / "run/export"))
    assert "antigravity" not in sys.modules


def test_timms_weights_are_refused(folder: Path) -> None:
    from blip2_train.checkpoints.convert.timm_towers import load_tower
    from blip2_train.models.vision_tower import VisionTower, normalisation

    kind = import_module("convnext_tower").ConvNextConfig
    config = kind(name="convnext_atto", weights="timm", image_size=64, **SIZES)
    with pytest.raises(ConfigError, match="are a file of its own names"):
        load_tower(VisionTower(config), config)
    with pytest.raises(ConfigError, match="give both"):
        normalisation(config)
