"""Tiny random models in the formats of others, and ours with the demo's tokenizers, for tests of conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import qformer_config, vision_config
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
)

import blip2_train
from blip2_train.checkpoints.convert.huggingface import converted_manifest
from blip2_train.checkpoints.export import Manifest
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel

DEMO = Path(blip2_train.__file__).parent / "assets" / "demo"
WORDS = len(load_qformer_tokenizer(str(DEMO / "bert")))
SCALE = {"opt": 0.15, "t5": 0.05, "retrieval": 0.25}
"""Of random weights; those of T5 are smaller because nothing keeps its states from growing."""
END = {"opt": "\n", "t5": None}
EVA = {
    "name": "eva_giant_patch14_clip_224",
    "overrides": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "mlp_ratio": 4.0},
}
"""A tower with the weights' names of the released ViT-g."""
CLIP = {
    "name": "vit_large_patch14_clip_quickgelu_224",
    "overrides": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2},
}
"""A tower with the weights' names of CLIP's ViT-L."""


def stir(model: nn.Module, scale: float) -> None:
    """Weights far from zero and one, so that a weight under a wrong name is noticed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1.0 + 0.1 * noise if is_norm else scale * noise)


def our_model(
    kind: str, vision: dict[str, Any] | None = None, **language: Any
) -> tuple[Blip2Model, Processor, Manifest]:
    """A model of ours (`opt`, `t5` or `retrieval`) with random weights and the demo's tokenizer."""
    torch.manual_seed(0)
    tower = vision_config(**({"mean": CLIP_MEAN, "std": CLIP_STD} | (vision or {})))
    about: dict[str, Any] = {
        "image_size": tower.image_size,
        "max_text_length": 16,
        "mean": tower.mean,
        "std": tower.std,
    }
    model: Blip2Model
    if kind == "retrieval":
        model = ImageTextModel(tower, qformer_config(vocab_size=WORDS))
        processor = Processor(**about, text_tokenizer=load_qformer_tokenizer(str(DEMO / "bert")))
    else:
        config = LanguageModelConfig(
            **({"name": str(DEMO / kind), "weights": "random", "end_token": END[kind]} | language)
        )
        model = GenerativeModel(tower, qformer_config(), config)
        processor = Processor(**about, language_tokenizer=language_tokenizer(kind))
    stir(model, SCALE[kind])
    return model.eval(), processor, converted_manifest(kind == "retrieval", "a test")


def language_tokenizer(kind: str) -> LanguageTokenizer:
    """The tokenizer of the demo's OPT or T5, padding on the left."""
    return LanguageTokenizer(str(DEMO / kind), padding_side="left", encoder_decoder=kind == "t5", end_token=END[kind])


def their_model(kind: str, **vision: Any) -> Any:
    """A model of transformers (`opt`, `t5` or `retrieval`) with random weights, for the demo's tokenizer."""
    sizes = {
        "hidden_size": 24, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    qformer = Blip2QFormerConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, vocab_size=WORDS, max_position_embeddings=40,
        use_qformer_text_input=kind == "retrieval",
    )  # fmt: skip
    parts: dict[str, Any] = {}
    token = WORDS
    if kind != "retrieval":
        text = AutoConfig.from_pretrained(DEMO / kind)
        token = len(AutoTokenizer.from_pretrained(DEMO / kind))
        text.vocab_size = token + 7
        text.eos_token_id = language_tokenizer(kind).end_id
        parts["text_config"] = text.to_dict()
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**(sizes | vision)).to_dict(),
        qformer_config=qformer.to_dict(),
        num_query_tokens=4,
        image_text_hidden_size=8,
        image_token_index=token,
        **parts,
    )
    model = (Blip2ForImageTextRetrieval if kind == "retrieval" else Blip2ForConditionalGeneration)(config)
    stir(model, SCALE[kind])
    return model.eval()


def save_theirs(model: Any, kind: str, folder: Path, **options: Any) -> Path:
    """A folder as on the hub: weights, configuration, processor."""
    model.save_pretrained(folder, **options)
    source = DEMO / ("bert" if kind == "retrieval" else kind)
    tokenizer = load_qformer_tokenizer(str(source)) if kind == "retrieval" else AutoTokenizer.from_pretrained(source)
    images = BlipImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6])
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return folder
