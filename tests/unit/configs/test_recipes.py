"""Every recipe composes with every machine, says the paper's numbers, and says each number once."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from blip2_train.config.compose import compose, config_folder, recipes
from blip2_train.config.overrides import options
from blip2_train.errors import ConfigError
from blip2_train.training.earlier_runs import find_checkpoint, find_export, run_folder_of

FOLDER = config_folder()
TRAINERS = options("trainer", [FOLDER])
HARDWARE = re.compile(
    r"^\s*(trainer|devices|precision|accelerator|strategy|num_nodes|num_workers)\b|/trainer\b", re.MULTILINE
)
PAPER = {
    "steps": 250_000,
    "image_size": 224,
    "max_text_length": 32,
    "init_from": None,
    "optim.lr": 1e-4,
    "optim.min_lr": 1e-5,
    "optim.warmup_lr": 1e-6,
    "optim.warmup_steps": 2000,
    "optim.weight_decay": 0.05,
    "optim.betas": [0.9, 0.98],
    "optim.clip_norm": None,
    "objective.label_smoothing": 0.1,
    "objective.itc_weight": 1.0,
    "objective.itm_weight": 1.0,
    "objective.itg_weight": 1.0,
    "model.temperature": 0.07,
    "model.qformer.num_queries": 32,
    "model.qformer.hidden_size": 768,
    "model.qformer.num_layers": 12,
    "model.qformer.cross_attention_every": 2,
    "model.vision.dtype": "float16",
    "model.vision.dropped_blocks": 1,
}
VIT_G, VIT_L = "eva_giant_patch14_clip_224.laion400m", "vit_large_patch14_clip_quickgelu_224.openai"
TABLES = {
    "stage1_vit_g": PAPER | {"global_batch_size": 1680, "model.vision.name": VIT_G},
    "stage1_vit_l": PAPER | {"global_batch_size": 2320, "model.vision.name": VIT_L},
    "stage1_vit_g_lavis": PAPER
    | {
        "global_batch_size": 1600,
        "model.vision.name": VIT_G,
        "optim.warmup_steps": 5000,
        "optim.betas": [0.9, 0.999],
        "steps": 8680,
    },
}
"""Numbers of Li et al., 2023, section 3.4, and of the released pretrain_stage1.yaml."""
STAGE_2 = {
    key: value for key, value in PAPER.items() if not key.startswith(("objective.", "init_from", "model.temp"))
} | {
    "steps": 80_000,
    "optim.min_lr": 5e-5,
    "global_batch_size": 1920,
    "model.vision.name": VIT_G,
    "model.language.weights": "pretrained",
    "model.language.dropout": False,
}
OPT = {
    "collator.prompt": "",
    "collator.learn_start": False,
    "model.language.start_token": "</s>",
    "model.language.end_token": "\n",
    "model.language.dtype": "float16",
    "model.language.architecture.vocab_size": 50272,
    "model.language.architecture.num_hidden_layers": 32,
}
FLAN_T5 = {
    "global_batch_size": 1520,
    "collator.prompt": "",
    "collator.split_prefix": True,
    "model.language.dtype": "bfloat16",
    "model.language.overrides.dense_act_fn": "gelu",
    "model.language.architecture.num_layers": 24,
    "model.language.architecture.vocab_size": 32128,
}
TABLES |= {
    "stage2_vit_g_opt_2.7b": STAGE_2 | OPT | {"model.language.architecture.hidden_size": 2560},
    "stage2_vit_g_opt_6.7b": STAGE_2 | OPT | {"model.language.architecture.hidden_size": 4096},
    "stage2_vit_l_opt_2.7b": STAGE_2 | OPT | {"model.vision.name": VIT_L},
    "stage2_vit_g_flan_t5_xl": STAGE_2 | FLAN_T5 | {"model.language.architecture.d_model": 2048},
    "stage2_vit_g_flan_t5_xxl": STAGE_2 | FLAN_T5 | {"model.language.architecture.d_model": 4096},
    "stage2_vit_l_flan_t5_xl": STAGE_2 | FLAN_T5 | {"model.vision.name": VIT_L},
}
"""Numbers of the same section, and what of the released code stage 2 keeps."""
TRAINED_TOWER = {
    "image_size": 364,
    "model.vision.name": VIT_G,
    "model.vision.frozen": False,
    "model.vision.dtype": "float32",
    "model.vision.gradient_checkpointing": True,
    "model.vision.dropped_blocks": 1,
    "model.qformer.num_queries": 32,
    "optim.lr": 1e-5,
    "optim.warmup_steps": 1000,
    "optim.betas": [0.9, 0.999],
    "optim.weight_decay": 0.05,
    "optim.min_lr": 0.0,
}
CAPTION = TRAINED_TOWER | {
    "steps": round(5 * 566_747 / 256),
    "global_batch_size": 256,
    "optim.layer_decay": 1.0,
    "collator.prompt": "a photo of",
    "module.prompt": "a photo of",
    "module.generation.num_beams": 5,
    "module.generation.max_new_tokens": 30,
    "module.generation.min_new_tokens": 4,
    "monitor": "val/cider",
}
RETRIEVAL = TRAINED_TOWER | {
    "steps": round(5 * 566_747 / 224),
    "global_batch_size": 224,
    "optim.layer_decay": 0.95,
    "objective.mask_same_image": True,
    "objective.itc_weight": 1.0,
    "objective.itm_weight": 1.0,
    "objective.itg_weight": 1.0,
    "max_text_length": 32,
}
XL = {
    "model.language.architecture.d_model": 2048,
    "collator.split_prefix": False,
    "module.generation.min_new_tokens": 8,
}
VIT_L_RETRIEVAL = {"model.vision.name": VIT_L, "optim.lr": 5e-6, "optim.betas": [0.9, 0.98], "optim.layer_decay": 1.0}
TABLES |= {
    "caption_coco_opt_2.7b": CAPTION | {"model.language.architecture.hidden_size": 2560},
    "caption_coco_opt_6.7b": CAPTION | {"model.language.architecture.hidden_size": 4096, "optim.layer_decay": 0.95},
    "caption_coco_flan_t5_xl": CAPTION | XL,
    "retrieval_coco_vit_g": RETRIEVAL,
    "retrieval_coco_vit_l": RETRIEVAL | VIT_L_RETRIEVAL,
}
"""Numbers of the same paper's tables 7 and 9; lengths of captions as section 3.3 of the reference recommends."""
VQA = TRAINED_TOWER | {
    "steps": 82_165,
    "global_batch_size": 128,
    "image_size": 490,
    "model.question_to_qformer": True,
    "optim.layer_decay": 0.95,
    "collator.prompt": "Question: {} Answer:",
    "module.prompt": "Question: {} Answer:",
    "module.generation.num_beams": 5,
    "module.generation.length_penalty": -1.0,
    "monitor": "val/vqa/accuracy",
}
TABLES |= {
    "vqa_opt_2.7b": VQA | {"model.language.architecture.hidden_size": 2560, "collator.encoder_decoder": False},
    "vqa_opt_6.7b": VQA | {"model.language.architecture.hidden_size": 4096, "optim.layer_decay": 0.9},
    "vqa_flan_t5_xl": VQA | {"model.language.architecture.d_model": 2048, "collator.encoder_decoder": True},
}
"""Numbers of table 8; beams and penalty: section 4.1."""
CONTINUING = ("stage2_", "caption_", "retrieval_", "vqa_")


def started(recipe: str) -> list[str]:
    """What recipes of later stages have to be told: where they start from."""
    return ["init_from=null"] if recipe.startswith(CONTINUING) else []


def below(recipe: str) -> dict[str, Any]:
    """The numbers that a recipe inherits from the recipes it builds on."""
    text = yaml.safe_load((FOLDER / "experiment" / f"{recipe}.yaml").read_text("utf-8"))
    settings: dict[str, Any] = {}
    for entry in text.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            settings |= below(entry) | written(FOLDER / "experiment" / f"{entry}.yaml")
    return settings


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in recipes() if name.startswith(CONTINUING)])
def test_recipes_that_continue_ask_where_to_start_from(recipe: str) -> None:
    with pytest.raises(ConfigError, match="continues earlier weights: pass init_from"):
        compose([f"experiment={recipe}"])


def numbers(node: Any, path: str = "") -> dict[str, Any]:
    """Full path to value of all numbers in a configuration file."""
    if isinstance(node, dict):
        return {
            k: v
            for key, value in node.items()
            for k, v in numbers(value, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(node, list):
        return {path: node} if node and all(isinstance(x, (int, float)) for x in node) else {}
    return {path: node} if isinstance(node, (int, float)) and not isinstance(node, bool) else {}


def written(file: Path) -> dict[str, Any]:
    """Numbers in a configuration file, by their full path in the composed configuration."""
    text = file.read_text("utf-8")
    package = (
        match.group(1)
        if (match := re.search(r"^# @package (\S+)", text))
        else ".".join(file.relative_to(FOLDER).parent.parts)
    )
    package = "" if package == "_global_" else package
    content = {key: value for key, value in yaml.safe_load(text).items() if key != "defaults"}
    return numbers(content, package)


PAIRS = [
    pytest.param(recipe, trainer, marks=() if (row - column) % len(TRAINERS) == 0 else pytest.mark.slow)
    for row, recipe in enumerate(recipes())
    for column, trainer in enumerate(TRAINERS)
]
"""Every recipe with every trainer; in the fast part each recipe with one, and each trainer."""


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "trainer"), PAIRS)
def test_composes_with_every_trainer(recipe: str, trainer: str) -> None:
    config = compose([f"experiment={recipe}", f"trainer={trainer}", *started(recipe)])
    assert config.experiment == recipe
    assert config.trainer.max_steps == config.optim.steps == config.data.steps == config.steps
    assert config.data.global_batch_size == config.global_batch_size
    assert config.data.image_size == config.model.vision.image_size == config.image_size
    assert "${" not in str(OmegaConf.to_container(config))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in recipes() if name.startswith(("stage2_", "caption_", "vqa_"))])
def test_composes_with_adapters(recipe: str) -> None:
    config = compose([f"experiment={recipe}", "peft=lora", *started(recipe)])
    assert config.peft.target == "language_model" and config.peft.r >= 1


@pytest.mark.slow
def test_hardware_changes_neither_steps_nor_batch() -> None:
    kept = []
    for trainer in TRAINERS:
        config = compose(["experiment=stage1_vit_g", f"trainer={trainer}", "paths.run_dir=here"])
        assert config.trainer.max_steps == config.steps
        kept.append({key: value for key, value in config.items() if key != "trainer"})
    assert all(other == kept[0] for other in kept)


OWN_DATA = {"shards": ["data.source=x"], "captions": ["data.source=x"], "questions": ["data.source=x", "data.images=x"]}


@pytest.mark.slow
@pytest.mark.parametrize("group", ["logger", "debug", "data"])
def test_every_option_composes(group: str) -> None:
    for option in options(group, [FOLDER]):
        compose(["experiment=demo_stage1", f"{group}={option}", *(OWN_DATA.get(option, []))])


@pytest.mark.slow
@pytest.mark.parametrize("option", options("debug", [FOLDER]))
def test_last_is_never_a_run_to_debug(tmp_path: Path, option: str) -> None:
    common = ["experiment=demo_stage1", f"paths.output_dir={tmp_path}"]
    kept, later = (Path(compose(arguments).paths.run_dir) for arguments in (common, [*common, f"debug={option}"]))
    for number, run in enumerate((kept, later)):
        for file in (run / "export" / "manifest.json", run / "checkpoints" / "step_0000003.ckpt"):
            file.parent.mkdir(parents=True)
            file.touch()
            os.utime(file, (number, number))
    assert find_export("last:demo_stage1", str(tmp_path)) == str(kept / "export")
    assert run_folder_of(find_checkpoint("last", str(tmp_path), "demo_stage1")) == kept
    assert run_folder_of(find_checkpoint("last:demo_stage1", str(tmp_path), "another")) == kept


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "table"), TABLES.items(), ids=TABLES.keys())
def test_numbers_are_the_papers(recipe: str, table: dict[str, Any]) -> None:
    config = compose([f"experiment={recipe}", *started(recipe)])
    actual = {key: OmegaConf.select(config, key) for key in table}
    assert {k: list(v) if not isinstance(v, (int, float, str, type(None))) else v for k, v in actual.items()} == table


def test_every_recipe_is_in_a_table_or_a_demo_or_of_real_parts() -> None:
    assert {name for name in recipes() if not name.startswith(("demo_", "real_"))} == set(TABLES)


@pytest.mark.parametrize("recipe", recipes())
def test_recipe_is_short_and_free_of_hardware(recipe: str) -> None:
    lines = (FOLDER / "experiment" / f"{recipe}.yaml").read_text("utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert f"scripts/train.py experiment={recipe}" in lines[1], "the second line gives the command"
    settings = [line for line in lines if not line.startswith("#")]
    assert len(settings) <= 14
    assert not HARDWARE.search("\n".join(settings))


def test_a_number_is_written_in_one_file() -> None:
    """No recipe repeats a number of what it builds on, and no two parts that come together write the same key."""
    parts = [
        written(file) for file in sorted(FOLDER.rglob("*.yaml")) if file.parent.name not in ("experiment", "debug")
    ]
    recipe = {name: written(FOLDER / "experiment" / f"{name}.yaml") for name in recipes()}
    for name, own in recipe.items():
        inherited = below(name)
        assert not {key for key, value in own.items() if inherited.get(key) == value}, f"{name} repeats"
        for part in parts:
            assert not {key for key, value in own.items() if part.get(key) == value}, f"{name} repeats"
    alternatives: dict[str, set[str]] = {}
    for file in sorted(FOLDER.rglob("*.yaml")):
        if file.parent.name not in ("experiment", "debug"):
            for key in written(file):
                alternatives.setdefault(key, set()).add(str(file.parent))
    assert {key: folders for key, folders in alternatives.items() if len(folders) > 1} == {}


def test_shared_numbers_are_interpolated_not_copied() -> None:
    config: DictConfig = compose(
        ["experiment=demo_stage1", "image_size=48", "steps=770", "global_batch_size=12", "max_text_length=9", "seed=5"]
    )
    text = OmegaConf.to_yaml(config)
    for key, value in {
        "image_size": 48,
        "steps": 770,
        "global_batch_size": 12,
        "max_text_length": 9,
        "seed": 5,
    }.items():
        assert set(re.findall(rf"^\s*{key}: (.*)$", text, re.MULTILINE)) == {str(value)}
