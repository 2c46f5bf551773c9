"""Small models with the tower and the language models of the emoji scenes, and images to try them with.

Their Q-Formers are random, not trained: what such a model generates describes nothing, but it depends on the image,
which is what shows whether two versions of a library read the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from blip2_train.checkpoints.assembly import complete_manifest
from blip2_train.checkpoints.convert.huggingface import converted_manifest
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.config.compose import compose, instantiate
from blip2_train.data.batches.processor import Processor
from blip2_train.data.emoji_scenes.world import write_world
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.vision_tower import normalisation

RECIPES = {"stage 1": "demo_stage1", "OPT": "demo_stage2_opt", "T5": "demo_stage2_t5"}
_STRETCH = 4.0
"""Fresh weights times this let the images through; as initialised, every image has the same caption."""


def write_demo_models(folder: Path) -> dict[str, Path]:
    """Write a Hugging Face folder for each of `RECIPES`, by its name."""
    return {name: _write(folder / recipe, recipe) for name, recipe in RECIPES.items()}


def write_demo_images(folder: Path, count: int) -> list[Path]:
    """Write emoji scenes as PNG files."""
    world = write_world(
        folder / "world", train_scenes=1, val_scenes=count, test_scenes=0, nocaps_scenes=0, image_folders=("val",)
    )
    paths = []
    for number, path in enumerate(sorted((world.root / "images" / "val").iterdir())):
        paths.append(folder / f"{number}.png")
        with Image.open(path) as image:
            image.save(paths[-1])
    return paths


def _write(folder: Path, recipe: str) -> Path:
    config = compose([f"experiment={recipe}", "init_from=null", "image_size=96"])
    torch.manual_seed(0)
    model = instantiate(config.model).eval()
    load_initial_weights(model, None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith(("vision_model.", "language_model.")):
                parameter.mul_(_STRETCH)
    tokenizer: dict[str, Any] = {"text_tokenizer": instantiate(config.collator).tokenizer}
    if isinstance(model, GenerativeModel):
        tokenizer = {"language_tokenizer": tokenizer["text_tokenizer"].padding_on("left")}
    mean, std = normalisation(model.vision_config)
    processor = Processor(
        image_size=config.image_size, max_text_length=config.max_text_length, mean=mean, std=std, **tokenizer
    )
    manifest = converted_manifest(not isinstance(model, GenerativeModel), f"a random model of recipe {recipe}")
    return write_huggingface(folder, model, processor, complete_manifest(manifest, model, processor))
