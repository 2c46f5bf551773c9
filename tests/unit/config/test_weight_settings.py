"""Given weights take the place of what options and recipes say, and the command line is compared with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_exports import write_exports
from foreign_models import save_theirs, their_model
from omegaconf import OmegaConf
from released_files import RELEASED, released
from shard_files import write_tokenizer
from transformers import AutoTokenizer, LlamaConfig

from blip2_train.checkpoints.convert.bert_config import read_bert_config
from blip2_train.config.compose import asset, compose
from blip2_train.config.given_settings import SHIPPED_BERT, SHIPPED_SIZES
from blip2_train.errors import CheckpointMismatch, ConfigError

CAPTIONS = ("experiment=caption_coco_opt_2.7b",)
DEMO_1, DEMO_2 = ("experiment=demo_stage1",), ("experiment=demo_stage2_opt",)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small folders as the hub has them: OPT, T5, retrieval."""
    folder = tmp_path_factory.mktemp("foreign")
    return {kind: str(save_theirs(their_model(kind), kind, folder / kind)) for kind in ("opt", "t5", "retrieval")}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


def value(config: Any, key: str) -> Any:
    values = OmegaConf.select(config, key)
    return OmegaConf.to_container(values) if OmegaConf.is_config(values) else values


@pytest.mark.slow
def test_a_folder_of_the_hub_brings_its_model_and_leaves_the_training_to_the_recipe(foreign: dict[str, str]) -> None:
    config = compose([*CAPTIONS, f"init_from={foreign['opt']}"])
    vision, qformer, language = (value(config, f"model.{part}") for part in ("vision", "qformer", "language"))
    assert (vision["name"], vision["overrides"]["embed_dim"], vision["dropped_blocks"]) == (
        "vit_base_patch16_224",
        24,
        0,
    )
    assert vision["mean"] == [0.4, 0.5, 0.6] == value(config, "data.mean") and vision["weights"] == foreign["opt"]
    assert (qformer["hidden_size"], qformer["num_queries"], qformer["num_heads"]) == (16, 4, 2)
    assert language["name"] == foreign["opt"] and language["architecture"]["hidden_size"] == 160
    assert language["end_token"] == "\n" == value(config, "collator.end_token") and language["start_token"] is None
    assert value(config, "collator.name") == foreign["opt"]
    recipe = compose([*CAPTIONS, "init_from=null"])
    for key in ("image_size", "steps", "optim", "max_text_length", "model.language.dtype", "model.qformer.dropout"):
        assert value(config, key) == value(recipe, key), key
    kept = ("image_size", "frozen", "dtype", "gradient_checkpointing")
    assert {key: vision[key] for key in kept} == {key: value(recipe, f"model.vision.{key}") for key in kept}


@pytest.mark.slow
def test_a_language_model_of_the_other_kind_brings_its_collator_and_precision(
    foreign: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    compose([*CAPTIONS, f"init_from={foreign['opt']}"])
    assert "that of the recipe" not in caplog.text
    config = compose([*CAPTIONS, f"init_from={foreign['t5']}"])
    assert f"the language model {foreign['t5']} has an encoder, that of the recipe none" in caplog.text
    collator = value(config, "collator")
    assert collator["_target_"].endswith("load_encoder_decoder_collator") and collator["prompt"] == "a photo of"
    assert collator["split_prefix"] is False and collator["name"] == foreign["t5"] and collator["max_text_length"] == 32
    assert value(config, "data.collator") == collator and value(config, "module.prompt") == "a photo of"
    assert value(config, "model.language.dtype") == "bfloat16"
    back = compose(["experiment=caption_coco_flan_t5_xl", f"init_from={foreign['opt']}"])
    assert value(back, "collator._target_").endswith("load_decoder_only_collator")
    questions = compose(["experiment=vqa_opt_2.7b", f"init_from={foreign['t5']}"])
    assert value(questions, "collator.encoder_decoder") is True
    chosen = compose([*CAPTIONS, "collator=decoder_only", f"init_from={foreign['t5']}"])
    assert value(chosen, "collator._target_").endswith("load_decoder_only_collator")


def test_stage_1_of_the_hub_brings_its_tokenizer(foreign: dict[str, str]) -> None:
    config = compose(["experiment=retrieval_coco_vit_g", f"init_from={foreign['retrieval']}"])
    assert value(config, "tokenizer") == foreign["retrieval"] == value(config, "collator.tokenizer")
    assert value(config, "model.qformer.vocab_size") == 691 and value(config, "model.qformer.max_positions") == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.qformer.num_queries=8", "model.qformer.num_queries=8 contradicts Hugging Face"),
        ("model.qformer.layer_norm_eps=1e-6", "which has 1e-12"),
        ("model.vision.name=vit_tiny_patch16_224", "model.vision.name=vit_tiny_patch16_224 contradicts"),
        ("model.vision={name: vit_tiny_patch16_224}", "model.vision.name=vit_tiny_patch16_224 contradicts"),
        ("model.vision.weights=timm", "holds its tower itself"),
        ("model.language.name=google/flan-t5-xl", "holds its language model itself"),
        ("model.language.weights=random", "model.language.weights=random contradicts"),
        ("model.qformer.weights=google-bert/bert-base-uncased", "holds its Q-Former itself"),
    ],
)
def test_settings_that_contradict_the_weights_are_refused_by_name(
    foreign: dict[str, str], setting: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([*CAPTIONS, f"init_from={foreign['opt']}", setting])
    assert words in str(caught.value) and "leave" in str(caught.value)
    compose([*CAPTIONS, f"init_from={foreign['opt']}", "model.qformer.num_queries=4", "model.vision.overrides.depth=2"])


def test_weights_of_a_stage_that_is_not_continued_are_refused_before_anything_of_the_recipe_is_looked_for(
    foreign: dict[str, str],
) -> None:
    recipe = "experiment=retrieval_coco_vit_g"
    with pytest.raises(
        CheckpointMismatch, match=r"Hugging Face .* is of stage2; an image-text model \(stage 1\) continues"
    ):
        compose([recipe, f"init_from={foreign['opt']}"])
    assert value(compose([recipe, f"init_from={foreign['retrieval']}"]), "model.qformer.num_queries") == 4


@pytest.mark.slow
def test_questions_are_split_by_the_tokenizer_of_their_text_half(
    foreign: dict[str, str], exports: dict[str, str]
) -> None:
    questions = ["experiment=vqa_opt_2.7b", f"init_from={foreign['opt']}"]
    config = compose([*questions, f"init_text_from={foreign['retrieval']}"])
    assert value(config, "tokenizer") == foreign["retrieval"] == value(config, "collator.tokenizer")
    assert value(config, "model.qformer.vocab_size") == 691 and value(config, "model.qformer.max_positions") == 40
    own = compose([*questions, f"init_text_from={exports['stage1']}"])
    assert value(own, "tokenizer") == str(Path(exports["stage1"]) / "tokenizer")


def test_a_tokenizer_with_other_words_than_the_weights_is_refused(foreign: dict[str, str], tmp_path: Path) -> None:
    settings = ["experiment=retrieval_coco_vit_g", f"init_from={foreign['retrieval']}"]
    same = compose([*settings, f"tokenizer={asset('demo/bert')}"])
    assert value(same, "tokenizer") == asset("demo/bert")
    words = (Path(asset("demo/bert")) / "vocab.txt").read_text("utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-1], "another"]), "utf-8")  # of the same length
    with pytest.raises(ConfigError, match=r"tokenizer=.* contradicts Hugging Face .* another vocabulary"):
        compose([*settings, f"tokenizer={tmp_path}"])


@pytest.mark.slow
def test_another_language_model_than_weights_were_trained_with_is_refused(exports: dict[str, str]) -> None:
    settings = [*DEMO_2, f"init_from={exports['opt']}"]
    with pytest.raises(
        ConfigError, match=r"model\.language\.name=.*t5 contradicts .*: model_type is t5, not opt; leave"
    ):
        compose([*settings, f"model.language.name={asset('demo/t5')}"])
    moved = compose([*settings, "model.language.name=/elsewhere/opt"])
    assert value(moved, "model.language.name") == "/elsewhere/opt"


@pytest.mark.slow
def test_an_export_of_other_sizes_is_followed(exports: dict[str, str]) -> None:
    for export in (exports["stage1"], str(Path(exports["opt"]).parent)):
        config = compose([*DEMO_2, f"init_from={export}"])
        assert value(config, "model.qformer.num_queries") == 4 and value(config, "model.qformer.hidden_size") == 16
        assert value(config, "model.language.name") == asset("demo/opt")
        assert value(config, "model.vision.weights") == asset("demo/vision/model.safetensors")
    config = compose([*DEMO_1, f"init_from={exports['stage1']}"])
    assert value(config, "tokenizer") == asset("demo/bert")  # the same words, which stay where the export may not


@pytest.mark.slow
def test_weights_that_are_not_there_leave_the_recipe_as_it_is() -> None:
    for absent in ("no/such/export", "last:demo_vqa"):
        config = compose([*DEMO_2, f"init_from={absent}", "paths.output_dir=no/outputs"])
        assert value(config, "model.qformer.num_queries") == 8


@pytest.mark.slow
def test_a_released_file_names_the_released_parts(tmp_path: Path) -> None:
    """Tensors of the released shapes in a file of a few kilobytes: each is one number, stretched."""
    shapes = released(*RELEASED["blip2_pretrained_flant5xl_vitL.pth"][0])
    theirs = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    torch.save({"model": theirs}, tmp_path / "flant5xl_vitL.pth")
    config = compose([*CAPTIONS, f"init_from={tmp_path / 'flant5xl_vitL.pth'}"])
    recipe = compose(["experiment=stage2_vit_l_flan_t5_xl", "init_from=null"])
    for key in ("name", "weights", "dropped_blocks"):
        assert value(config, f"model.vision.{key}") == value(recipe, f"model.vision.{key}"), key
    for key in ("name", "overrides", "start_token", "end_token"):
        assert value(config, f"model.language.{key}") == value(recipe, f"model.language.{key}"), key
    moved = compose([*CAPTIONS, f"init_from={tmp_path / 'flant5xl_vitL.pth'}", "model.language.name=/data/flan-t5-xl"])
    assert value(moved, "model.language.name") == "/data/flan-t5-xl"


@pytest.mark.slow
def test_another_language_model_brings_its_own_tokens(tmp_path: Path) -> None:
    LlamaConfig(
        vocab_size=700, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    ).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(asset("demo/opt")).save_pretrained(tmp_path)
    recipe = "experiment=stage2_vit_g_opt_2.7b"
    language = value(compose([recipe, "init_from=null", f"model.language.name={tmp_path}"]), "model.language")
    assert {language[key] for key in ("start_token", "end_token", "pad_token", "architecture")} == {None}
    chosen = [recipe, "init_from=null", f"model.language.name={tmp_path}", 'model.language.end_token="\\n"']
    assert value(compose(chosen), "model.language.end_token") == value(compose(chosen), "collator.end_token") != None  # noqa: E711
    t5 = [recipe, "init_from=null", f"model.language.name={asset('demo/t5')}"]
    assert value(compose(t5), "collator._target_").endswith("load_encoder_decoder_collator")


def test_the_same_language_model_elsewhere_keeps_the_options_settings(tmp_path: Path) -> None:
    shutil.copytree(asset("demo/opt"), tmp_path / "opt")
    config = compose([*DEMO_2, "init_from=null", f"model.language.name={tmp_path / 'opt'}"])
    assert value(config, "model.language.end_token") == "\n" and value(config, "collator.name") == str(tmp_path / "opt")


@pytest.mark.slow
def test_another_tower_is_not_described_by_the_option() -> None:
    config = compose([*DEMO_1, "model.vision.name=vit_base_patch16_siglip_224.webli"])
    assert value(config, "model.vision.overrides") == {} and value(config, "model.vision.weights") == "timm"
    assert value(config, "data.mean") == [0.5, 0.5, 0.5]
    own = [*DEMO_1, "model.vision.name=vit_small_patch16_224", "model.vision.overrides={depth: 3}"]
    assert value(compose(own), "model.vision.overrides") == {"depth": 3}
    same = compose([*DEMO_1, "model.vision.name=vit_tiny_patch16_224"])
    assert value(same, "model.vision.overrides.embed_dim") == 128


def test_a_bert_brings_its_sizes_and_its_tokenizer(tmp_path: Path) -> None:
    shutil.copytree(asset("demo/bert"), tmp_path / "bert")
    settings = ["experiment=stage1_vit_g", f"model.qformer.weights={tmp_path / 'bert'}"]
    config = compose(settings)
    assert value(config, "tokenizer") == str(tmp_path / "bert") == value(config, "collator.tokenizer")
    sizes = {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "intermediate_size": 512, "vocab_size": 691}
    assert {key: value(config, f"model.qformer.{key}") for key in sizes} == sizes
    assert value(config, "model.qformer.num_queries") == 32
    with pytest.raises(ConfigError, match=r"model\.qformer\.num_heads=8 contradicts .* which has 4"):
        compose([*settings, "model.qformer.num_heads=8"])


@pytest.mark.slow
def test_a_vocabulary_of_any_language_brings_its_size(tmp_path: Path) -> None:
    """Also for random weights, which have none."""
    tokenizer = write_tokenizer(tmp_path, ["猫", "在", "上", "屋", "##顶"])
    config = compose([*DEMO_1, "model.qformer.weights=random", f"tokenizer={tokenizer}"])
    assert value(config, "model.qformer.vocab_size") == 11 and value(config, "collator.tokenizer") == tokenizer
    with pytest.raises(ConfigError, match=r"model\.qformer\.vocab_size=12 contradicts tokenizer=.*, which has 11"):
        compose([*DEMO_1, "model.qformer.weights=random", f"tokenizer={tokenizer}", "model.qformer.vocab_size=12"])


def test_the_sizes_of_the_shipped_bert_are_known_as_its_files_have_them() -> None:
    """And a setting that contradicts them is refused, though these files are not read where none does."""
    assert str(SHIPPED_BERT) == asset("demo/bert") and read_bert_config(str(SHIPPED_BERT)) == SHIPPED_SIZES
    config = compose(["experiment=demo_stage1_bert"])
    assert {key: config.model.qformer[key] for key in SHIPPED_SIZES} == SHIPPED_SIZES
    with pytest.raises(ConfigError, match=r"model\.qformer\.hidden_size=64 contradicts .*demo/bert, which has 128"):
        compose(["experiment=demo_stage1_bert", "model.qformer.hidden_size=64"])
