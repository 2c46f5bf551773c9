"""Mean and standard deviation of a tower are its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from timm.data import resolve_model_data_config
from timm.models import create_model

from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import normalisation

HALF = (0.5, 0.5, 0.5)
OTHER = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def _tower(name: str = "vit_tiny_patch16_224", weights: str = "random", **changes: Any) -> VisionConfig:
    return VisionConfig(name=name, weights=weights, image_size=224, **changes)


@pytest.mark.parametrize(
    "name", ["vit_large_patch14_clip_quickgelu_224.openai", "eva_giant_patch14_clip_224.laion400m"]
)
def test_the_towers_of_the_paper_have_clips(name: str) -> None:
    assert normalisation(_tower(name)) == (CLIP_MEAN, CLIP_STD)


@pytest.mark.slow
def test_the_tag_counts() -> None:
    """One architecture, two weights, two normalisations."""
    for tag in ("augreg_in21k", "dino", "mae"):
        name = f"vit_base_patch16_224.{tag}"
        theirs = resolve_model_data_config(create_model(name, pretrained=False, depth=1))
        assert normalisation(_tower(name)) == (theirs["mean"], theirs["std"])
    assert normalisation(_tower("vit_base_patch16_224.augreg_in21k")) != normalisation(
        _tower("vit_base_patch16_224.dino")
    )


def test_what_is_stated_comes_first() -> None:
    assert normalisation(_tower(mean=[1, 0, 0])) == ((1.0, 0.0, 0.0), HALF)
    assert normalisation(_tower("no_such_model", mean=OTHER[0], std=OTHER[1])) == (tuple(OTHER[0]), tuple(OTHER[1]))


@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_a_local_file_brings_its_own(tmp_path: Path, layout: str) -> None:
    about: dict[str, Any] = {"mean": OTHER[0], "std": OTHER[1]}
    top = {"architecture": "vit_tiny_patch16_224"}
    content = top | ({"pretrained_cfg": about} if layout == "nested" else about)
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    for weights in (tmp_path / "model.safetensors", tmp_path):
        assert normalisation(_tower(weights=str(weights))) == (tuple(OTHER[0]), tuple(OTHER[1]))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    assert normalisation(_tower(weights=str(tmp_path / "model.safetensors"))) == (HALF, HALF)


@pytest.mark.parametrize("wrong", ["{", '{"architecture": "x", "mean": [1]}', '{"architecture": "x", "mean": "abc"}'])
def test_an_unreadable_description_is_named(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "config.json").write_text(wrong, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json.*model\.vision\.mean"):
        normalisation(_tower(weights=str(tmp_path / "model.safetensors")))


def test_unknown_names_and_tags_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'vit_nothing'; see timm"):
        normalisation(_tower("vit_nothing"))
    with pytest.raises(ConfigError, match=r"did you mean (.*, )?vit_tiny_patch16_224[,?]"):
        normalisation(_tower("vit_tinny_patch16_224.augreg_in21k"))
    with pytest.raises(ConfigError, match=r"did you mean vit_base_patch16_siglip_224\?"):
        normalisation(_tower("timm/vit_base_patch16_siglip_224.webli"))
    with pytest.raises(ConfigError, match=r"'nonsense'; it has .*augreg_in21k"):
        normalisation(_tower("vit_tiny_patch16_224.nonsense"))


@pytest.mark.parametrize("wrong", [{"mean": [0.5]}, {"std": [0.5, 0.0, 0.5]}])
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        _tower(**wrong)


def test_no_overrides_may_be_none() -> None:
    assert _tower(overrides=None).overrides == {}
