"""A CLIP of transformers, tiny and with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer


def tiny_clip(folder: Path) -> Path:
    """A CLIP of transformers with random weights that reads letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=20
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = sizes | ends | {"vocab_size": len(tokens), "max_position_embeddings": 20}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8}))
    model.save_pretrained(folder)
    shape = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**shape), tokenizer).save_pretrained(folder)
    return folder
