"""A configuration holds the numbers that its pixel values are normalised with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
from foreign_models import our_model
from omegaconf import OmegaConf
from shard_files import write_shards, write_tokenizer
from timm.models import save_for_hf
from tiny_run import arguments

from blip2_train.checkpoints.convert.huggingface_config import describe_processor
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.cli.train.run import build
from blip2_train.config import tower_normalisation
from blip2_train.config.compose import compose
from blip2_train.config.run_data import make_data
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import normalisation

CLIPS = (list(CLIP_MEAN), list(CLIP_STD))
NO_STATED = ["model.vision.mean=null", "model.vision.std=null"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["demo_stage1", "stage1_vit_g", "stage1_vit_l"])
def test_clips_for_the_towers_of_the_recipes(experiment: str) -> None:
    config = compose([f"experiment={experiment}", "data=emoji_scenes"])
    for node in (config.data, config.model.vision):
        assert (node.mean, node.std) == CLIPS


def test_another_tower_brings_its_own() -> None:
    name = "model.vision.name=vit_small_patch14_dinov2.lvd142m"
    config = compose(["experiment=demo_stage1", name, "model.vision.weights=random", *NO_STATED])
    for node in (config.data, config.model.vision):
        assert (node.mean, node.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_the_command_line_wins() -> None:
    config = compose(["experiment=demo_stage1", "data.mean=[0.1,0.2,0.3]"])
    for node in (config.data, config.model.vision):
        assert (node.mean, node.std) == ([0.1, 0.2, 0.3], CLIPS[1])


def test_an_unknown_tower_is_named_where_the_data_are_made(tmp_path: Path) -> None:
    config = compose(["experiment=demo_stage1", "model.vision.name=vit_none", *NO_STATED])
    with pytest.raises(ConfigError, match="vit_none"):
        make_data(config)


OTHER = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


@pytest.mark.slow
def test_a_folder_that_timm_wrote_brings_its_own(tmp_path: Path) -> None:
    """Also against what the option states, but not against the command line."""
    own = {"mean": OTHER[0], "std": OTHER[1]}
    theirs = timm.create_model("vit_tiny_patch16_224", depth=2, pretrained_cfg_overlay=own)
    save_for_hf(theirs, str(tmp_path / "timm"))
    for weights in (tmp_path / "timm", tmp_path / "timm/model.safetensors"):
        given = ["experiment=demo_stage1", f"model.vision.weights={weights}"]
        for node in (compose(given).data, compose(given).model.vision):
            assert (node.mean, node.std) == OTHER
        assert compose([*given, "model.vision.mean=[0.5,0.5,0.5]"]).data.mean == [0.5, 0.5, 0.5]
        assert compose([*given, "data.mean=[0.5,0.5,0.5]"]).model.vision.mean == [0.5, 0.5, 0.5]
    (tmp_path / "timm/config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"timm/config\.json"):
        compose(["experiment=demo_stage1", f"model.vision.weights={tmp_path / 'timm'}"])


def test_a_hugging_face_folder_as_weights_of_the_tower_brings_its_own(tmp_path: Path) -> None:
    model, processor, manifest = our_model("retrieval", {"mean": OTHER[0], "std": OTHER[1]})
    write_huggingface(tmp_path / "there", model, processor, manifest)
    config = compose(["experiment=demo_stage1", f"model.vision.weights={tmp_path / 'there'}"])
    assert (config.data.mean, config.data.std) == OTHER


@pytest.mark.parametrize(
    ("written", "mean", "std"),
    [
        ({"image_mean": OTHER[0], "image_std": OTHER[1]}, *OTHER),
        ({"image_mean": 0.5, "image_std": 0.25}, [0.5] * 3, [0.25] * 3),
        ({"do_normalize": False, "image_mean": OTHER[0]}, [0.0] * 3, [1.0] * 3),
        ({"image_mean": None}, *CLIPS),
    ],
)
def test_the_values_of_a_preprocessor(written: dict[str, object], mean: object, std: object, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written), encoding="utf-8")
    normal = describe_processor(tmp_path, 224)
    assert (normal["mean"], normal["std"]) == (mean, std)


def test_a_damaged_preprocessor_is_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("[1", encoding="utf-8")
    with pytest.raises(CheckpointMismatch, match=r"preprocessor_config\.json cannot be read"):
        describe_processor(tmp_path, 224)


def test_a_run_prints_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers in configuration, description, processor, transforms; those of the command line, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(tmp_path / "shards", [8])
    write_tokenizer(tmp_path / "tokenizer")
    config = compose([*arguments(tmp_path / "runs"), f"data.mean={OTHER[0]}", f"data.std={OTHER[1]}"])
    run = build(config)
    assert (list(run.data.mean), list(run.data.std)) == OTHER
    vision, processor = run.module.about["architecture"]["vision"], run.module.about["processor"]
    written = OmegaConf.create(run.module.run_config)
    for normal in (vision, processor, written.data, written.model.vision):
        assert (list(normal["mean"]), list(normal["std"])) == OTHER
    assert Processor(**processor).mean == OTHER[0]


def test_the_towers_of_the_paper_are_known_as_timm_knows_them() -> None:
    for name, known in tower_normalisation.KNOWN.items():
        assert normalisation(VisionConfig(name=name, weights="timm", image_size=224)) == known
