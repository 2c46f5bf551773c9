"""A run whose length is given in epochs: its steps follow from the data, before it begins."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from caption_files import as_csv, rows, write_images
from shard_files import write_shards

from blip2_train.config.compose import compose
from blip2_train.config.epoch_steps import steps_of
from blip2_train.errors import ConfigError, ShardError

LOGGER = "blip2_train.config.epoch_steps"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 40 images with two captions each."""
    folder = tmp_path_factory.mktemp("own")
    write_images(folder, 40)
    return as_csv(folder / "mine", rows(40, captions=2))


def settings(own: Path, *more: str) -> list[str]:
    return ["experiment=demo_stage1", "data=captions", f"data.source={own}", "global_batch_size=16", *more]


def test_steps_follow_from_images_batch_and_what_is_held_out(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        config = compose(settings(own, "epochs=3"))
    assert (config.steps, config.epochs) == (7, 3), "36 images are trained on, four are held out: 108 / 16"
    assert config.optim.steps == config.data.steps == config.trainer.max_steps == 7
    assert config.validate_every <= 7 and config.optim.warmup_steps <= 7, "they are scaled as with steps=7"
    assert "epochs=3: 3 x 36 samples / 16 a step = 7 steps" in caplog.text
    assert compose(settings(own, "epochs=0.5", "data.holdout=0", "validate_every=null")).steps == 2


def test_every_sample_comes_at_least_so_often() -> None:
    assert [steps_of(epochs, 30, 10) for epochs in (1, 1.1, 2, 1 / 3)] == [3, 4, 6, 1]
    assert steps_of(0.1, 100, 10) == 1, "rounding of binary fractions makes no step"


def test_an_epoch_of_a_mixture_is_all_its_sources_together(own: Path, tmp_path: Path) -> None:
    """Whatever their weights are."""
    write_shards(tmp_path / "shards", [14, 10])
    target = "_target_: blip2_train.data.sources.config.SourceConfig"
    sources = f"[{{{target}, path: {own}, weight: 3}}, {{{target}, path: {tmp_path}/shards, weight: 1}}]"
    mixed = settings(own, f"data.sources={sources}", "data.holdout=0", "validate_every=null", "epochs=2")
    assert compose(mixed).steps == 8, "(40 + 24) x 2 / 16"


@pytest.mark.slow
def test_the_command_line_comes_before_a_recipe(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    recipe = ["# @package _global_", "defaults: [demo_stage1, override /data: captions, _self_]", "epochs: 2"]
    (folder / "my_recipe.yaml").write_text("\n".join([*recipe, f"data: {{source: {own}}}", "global_batch_size: 12"]))

    def length(*more: str) -> tuple[int, float | None]:
        config = compose(["experiment=my_recipe", *more], tmp_path / "mine")
        return config.steps, config.epochs

    assert length() == (6, 2)
    assert length("epochs=4") == (12, 4)
    assert length("steps=5") == (5, None)
    assert length("epochs=null") == (660, None), "the steps of the recipe that it is made of"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["epochs=3", "steps=100"], ConfigError, "^epochs=3 and steps=100: give one of them, the other follows"),
        (["epochs=0"], ConfigError, "^epochs must be a positive number, got 0"),
        (["epochs=many"], ConfigError, "^epochs is 'many'; expected a number or null$"),
        (["epochs=2", "global_batch_size=0"], ConfigError, "^global_batch_size must be at least 1, got 0$"),
        (["epochs=2", "data.source=/not.csv"], ShardError, "/not.csv does not exist"),
        (
            ["epochs=2", "data.access=sequential"],
            ConfigError,
            "^epochs: with data.access=sequential the number of samp",
        ),
    ],
)
def test_what_is_refused(own: Path, more: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compose(settings(own, *more))
