"""What configurations and checkpoints named before constructors moved goes on working, and each move is logged once."""

from __future__ import annotations

import logging
import pkgutil
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from blip2_train.config import moved_targets
from blip2_train.config.compose import compose, instantiate
from blip2_train.config.moved_targets import MOVED
from blip2_train.config.strict_keys import find_target
from blip2_train.data.sources.config import SourceConfig

CONFIGS = Path(__file__).parents[3] / "configs"
B847A27 = """
data.answer_collate.load_answer_collator
data.collate.load_image_text_collator
data.emoji_scenes.naming.names_right
data.emoji_scenes.world.ensure_world
data.generation_collate.load_decoder_only_collator
data.generation_collate.load_encoder_decoder_collator
data.question_source.QuestionSourceConfig
data.source_config.SourceConfig
data.storage_options.StorageOptions
evaluation.official_tasks.answering_task
evaluation.official_tasks.captioning_task
evaluation.official_tasks.retrieval_task
models.configs.AdapterConfig
models.configs.GenerationOptions
models.configs.LanguageModelConfig
models.configs.QFormerConfig
models.configs.VisionConfig
models.generative.GenerativeModel
models.image_text.ImageTextModel
objectives.generation.AnswerObjective
objectives.generation.GenerationObjective
objectives.representation.RepresentationObjective
optim.config.OptimizerConfig
training.answering.AnsweringModule
training.change_warnings.ChangeWarnings
training.data_module.ImageTextDataModule
training.generation.GenerationModule
training.lost_contact.DataParallelStrategy
training.non_finite.SkipNonFinite
training.representation.RepresentationModule
training.run_checkpoints.RunCheckpoints
training.run_log.RunCSVLogger
training.sample_log.SampleLog
training.sharding.ShardedStrategy
training.trainer_options.TrainerOptions
""".split()
"""Every `_target_` of this project that `configs/` and the documentation named at commit b847a27."""
NEW = {
    "blip2_train.data.emoji_scenes.naming.marked_names",
    "blip2_train.data.emoji_scenes.scene_source.SceneSourceConfig",
    "blip2_train.data.emoji_scenes.scene_source.prepare_scenes",
}
"""Each `_target_` in `configs/` of a constructor that did not exist then."""
OLD_SOURCE = "blip2_train.data.source_config.SourceConfig"


def targets_of_today() -> set[str]:
    texts = [path.read_text("utf-8") for path in CONFIGS.rglob("*.yaml")]
    return {name for text in texts for name in re.findall(r"_target_: (blip2_train[\w.]+)", text)}


@pytest.mark.parametrize("name", B847A27)
def test_old_names_find_the_constructors_of_today(name: str) -> None:
    full = f"blip2_train.{name}"
    assert find_target("part", full) is pkgutil.resolve_name(MOVED.get(full, full))


def test_every_target_of_today_is_an_old_name_or_the_end_of_a_move() -> None:
    known = {MOVED.get(f"blip2_train.{name}", f"blip2_train.{name}") for name in B847A27}
    assert targets_of_today() - NEW <= known


def test_a_move_ends_at_a_name_that_exists_and_has_not_moved() -> None:
    for old, new in MOVED.items():
        assert new not in MOVED and callable(pkgutil.resolve_name(new)), old


@pytest.mark.slow
def test_a_configuration_with_old_names_is_composed_with_the_names_of_today(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved_targets._log_once.cache_clear()
    (tmp_path / "data").mkdir()
    text = (CONFIGS / "data" / "coco_karpathy.yaml").read_text("utf-8")
    assert "blip2_train.data.sources.config.SourceConfig" in text
    (tmp_path / "data" / "mine.yaml").write_text(text.replace("data.sources.config.", "data.source_config."))
    collator = "collator._target_=blip2_train.data.collate.load_image_text_collator"
    demo = ["experiment=demo_stage1", "paths.run_dir=here"]
    with caplog.at_level(logging.INFO):
        config = compose([*demo, "data=mine", collator], tmp_path)
    assert config == compose([*demo, "data=coco_karpathy"])
    lines = [record.getMessage() for record in caplog.records if "has moved" in record.getMessage()]
    assert len(lines) == 2 and sum(OLD_SOURCE in line for line in lines) == 1


def test_a_node_with_an_old_name_is_built() -> None:
    node = OmegaConf.create({"_target_": OLD_SOURCE, "path": "x", "name": "x"})
    built = instantiate(node)
    assert isinstance(built, SourceConfig) and node._target_ == OLD_SOURCE
