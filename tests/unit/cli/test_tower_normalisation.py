"""A configuration holds the numbers that its pixel values are normalised with."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2_train.cli.compose import compose
from blip2_train.cli.run_data import make_data
from blip2_train.data.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import ConfigError

CLIPS = (list(CLIP_MEAN), list(CLIP_STD))
NO_STATED = ["model.vision.mean=null", "model.vision.std=null"]


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
