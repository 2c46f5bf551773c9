"""Random generative models of a few thousand parameters, and batches for them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from tiny import VOCABULARY, qformer_config, vision_config

from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.types import AnswerBatch, GenerationBatch

WORDS = 50
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "opt": {
        "model_type": "opt", "vocab_size": WORDS, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
    },
    "t5": {
        "model_type": "t5", "vocab_size": WORDS, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
        "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "tie_word_embeddings": False,
    },
    "llama": {
        "model_type": "llama", "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
    },
    "gpt2": {
        "model_type": "gpt2", "vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64,
        "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip


def generative_model(
    family: str = "opt", seed: int = 0, vision: dict[str, Any] | None = None, qformer: dict[str, Any] | None = None,
    reads_questions: bool = False, **language: Any,
) -> GenerativeModel:  # fmt: skip
    """A stage-2 model with random weights, large enough that nothing vanishes."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"name": family, "weights": "random", "architecture": ARCHITECTURES[family]}
    model = GenerativeModel(
        vision_config(**(vision or {})),
        qformer_config(**(qformer or {})),
        LanguageModelConfig(**(options | language)),
        question_to_qformer=reads_questions,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model


def generation_batch(
    model: GenerativeModel, size: int = 4, seed: int = 0, length: int = 9, prompt: int = 2, words: int = WORDS
) -> GenerationBatch:
    """Random images and texts of 4 … `length` tokens, the first `prompt` of which are not learnt."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, length + 1, (size,), generator=generator)
    mask = torch.arange(length)[None] < lengths[:, None]
    ids = torch.randint(3, words, (size, length), generator=generator).masked_fill(~mask, 0)
    labels = ids.masked_fill(~mask, -100)
    if not model.is_encoder_decoder:
        labels[:, :prompt] = -100
    image = model.vision_config.image_size
    return GenerationBatch(
        pixel_values=torch.randn(size, 3, image, image, generator=generator).to(model.query_tokens.dtype),
        image_ids=torch.arange(size) + 100 * seed,
        sample_ids=tuple(f"{seed}/{i}" for i in range(size)),
        rejected=(),
        input_ids=ids,
        attention_mask=mask,
        labels=labels,
        target_positions=(labels.flatten() != -100).nonzero().flatten(),
        references=(("a cat",),) * size,
    )


def answer_batch(model: GenerativeModel, size: int = 4, length: int = 7) -> AnswerBatch:
    """Random images and texts, and questions of 3 … `length` tokens for the Q-Former."""
    batch = generation_batch(model, size)
    generator = torch.Generator().manual_seed(9)
    mask = torch.arange(length)[None] < torch.randint(3, length + 1, (size,), generator=generator)[:, None]
    ids = torch.randint(5, VOCABULARY, (size, length), generator=generator).masked_fill(~mask, 0)
    return AnswerBatch(
        **{field.name: getattr(batch, field.name) for field in fields(batch)},
        qformer_input_ids=ids,
        qformer_attention_mask=mask,
        questions=("why?",) * size,
        question_ids=tuple(range(size)),
        question_types=("why",) * size,
    )
