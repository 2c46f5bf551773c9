"""Exports with an untrained Q-Former on the tower and the language models of the emoji scenes, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import qformer_config

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import LanguageModelConfig, VisionConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel

ASSETS = Path(__file__).parents[2] / "blip2_train/assets/demo"
TOWER = {"patch_size": 12, "embed_dim": 128, "depth": 4, "num_heads": 4}


def write_exports(folder: Path) -> dict[str, str]:
    """Write `stage1`, `opt` and `t5`; returns where each lies."""
    torch.manual_seed(0)
    vision = VisionConfig(
        name="vit_tiny_patch16_224", weights=str(ASSETS / "vision/model.safetensors"), image_size=96, overrides=TOWER
    )
    bert = load_qformer_tokenizer(str(ASSETS / "bert"))
    stage1 = ImageTextModel(vision, qformer_config(vocab_size=len(bert)))
    path = {
        "stage1": export(
            folder / "stage1",
            stage1,
            "stage1",
            Processor(mean=CLIP_MEAN, std=CLIP_STD, image_size=96, max_text_length=16),
            bert,
        )
    }
    for kind, end in (("opt", "\n"), ("t5", None)):
        model = GenerativeModel(vision, qformer_config(), LanguageModelConfig(name=str(ASSETS / kind), end_token=end))
        processor = Processor(mean=CLIP_MEAN, std=CLIP_STD, image_size=96, max_text_length=16, prompt="a photo of")
        tokenizer = LanguageTokenizer(
            str(ASSETS / kind), padding_side="left", encoder_decoder=kind == "t5", end_token=end
        )
        path[kind] = export(folder / kind / "export", model, "stage2", processor, tokenizer)
    return path


def export(folder: Path, model: Blip2Model, stage: str, processor: Processor, tokenizer: Any) -> str:
    frozen = ("vision_model.", "language_model.")
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(frozen)}
    about: dict[str, Any] = {"architecture": describe_model(model), "processor": processor.describe()}
    manifest = Manifest(
        stage=stage, recipe="test", step=1, metrics={}, parent=None, frozen_fingerprint="", **about
    )  # fmt: skip
    return str(write_export(folder, state, "", tokenizer, manifest))
