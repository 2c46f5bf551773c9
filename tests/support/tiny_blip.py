"""A BLIP of transformers, tiny and with random weights, that reads and writes with the demo's tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from foreign_models import DEMO, stir
from transformers import AutoTokenizer, BlipConfig, BlipImageProcessor, BlipProcessor, PreTrainedModel

_SIZES = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_blip(folder: Path, kind: type[PreTrainedModel]) -> Path:
    """Write a model of the class `kind` with its processor."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "bert")
    words = len(tokenizer)
    text = _SIZES | {"encoder_hidden_size": 24, "vocab_size": words + 2, "max_position_embeddings": 32}
    ends = {"bos_token_id": words, "sep_token_id": tokenizer.sep_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = _SIZES | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = kind(BlipConfig(text_config=text | ends, vision_config=vision, image_text_hidden_size=16))
    stir(model, 0.2)
    model.save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder
