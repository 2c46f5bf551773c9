"""Random generative models with the tokenizers of the emoji scenes, and prompts for them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import image_text_model
from tiny_generation import ARCHITECTURES, generative_model

from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.evaluation.inference import Blip2

ASSETS = Path(__file__).parents[2] / "blip2_train/assets/demo"
BART = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 1, "forced_eos_token_id": 1,
}  # fmt: skip
QUESTIONS = [
    "what?",
    "how many red apples are there to the left of the cat?",
    "is it a dog?",
    "what is above the red fox?",
]


def shown(count: int = 4) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)) for n in range(count)]


@functools.cache
def tokenizer_of(kind: str) -> LanguageTokenizer:
    end = {"opt": "\n", "t5": None}[kind]
    return LanguageTokenizer(str(ASSETS / kind), padding_side="left", encoder_decoder=kind == "t5", end_token=end)


def writer(family: str, prompt: str = "", **language: Any) -> Blip2:
    """A random generative model with the tokenizer of the emoji scenes."""
    kind = "t5" if family in ("t5", "bart") else "opt"
    tokenizer = tokenizer_of(kind).padding_on("left")
    architecture = {**(BART if family == "bart" else ARCHITECTURES[family]), "vocab_size": len(tokenizer)}
    network = generative_model("t5" if family == "bart" else family, architecture=architecture, **language)
    if family == "bart":  # or it would generate the same whatever it reads
        with torch.no_grad():
            for layer in network.language_model.model.decoder.layers:
                layer.encoder_attn.out_proj.weight.mul_(30.0)
    return Blip2(
        network,
        Processor(
            mean=CLIP_MEAN, std=CLIP_STD, image_size=32, max_text_length=16, language_tokenizer=tokenizer, prompt=prompt
        ),
    )


def reader() -> Blip2:
    """A random image-text model."""
    tokenizer = load_qformer_tokenizer(str(ASSETS / "bert"))
    network = image_text_model(vocab_size=len(tokenizer))
    return Blip2(
        network,
        Processor(mean=CLIP_MEAN, std=CLIP_STD, image_size=32, max_text_length=16, text_tokenizer=tokenizer),
        "tiny",
    )
