"""Trains the tiny BERT, from which the demo's Q-Former starts, on masked words of the world's sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from blip2_train.from_transformers import load_tokenizer
from demo_assets.text_training import Batch, adamw, fit, held_out, save_half
from demo_assets.texts import sentences
from demo_assets.word_pieces import MAX_LENGTH, make_bert_tokenizer

SEED, BATCH_SIZE, LENGTH = 5, 64, 24
MASKED_SHARE = 0.15


def masked_batches(tokenizer: BertTokenizer, seed: int) -> Iterator[Batch]:
    """Endless batches of sentences, 15 % of whose tokens are to be guessed: 80 % masked, 10 % replaced, 10 % shown.

    Source: BERT (Devlin et al., 2018, arXiv:1810.04805), section 3.1, task 1.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = sentences(seed)
    special = torch.tensor(tokenizer.all_special_ids)
    while True:
        batch = tokenizer(
            [next(texts) for _ in range(BATCH_SIZE)],
            padding="longest",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        tokens = batch["input_ids"]
        chosen = torch.rand(tokens.shape, generator=generator) < MASKED_SHARE
        chosen &= ~torch.isin(tokens, special)
        draw = torch.rand(tokens.shape, generator=generator)
        random = torch.randint(len(special), len(tokenizer), tokens.shape, generator=generator)
        shown = torch.where(chosen & (draw < 0.8), torch.tensor(tokenizer.mask_token_id), tokens)
        shown = torch.where(chosen & (draw >= 0.9), random, shown)
        labels = torch.where(chosen, tokens, torch.tensor(-100))
        yield {"input_ids": shown, "attention_mask": batch["attention_mask"], "labels": labels}


def make_bert(assets: Path, *, steps: int = 3000) -> dict[str, Any]:
    """Write `bert/`: tokenizer, configuration and 16-bit weights; returns the figures for the manifest."""
    folder = assets / "bert"
    size = make_bert_tokenizer(folder)
    tokenizer = load_tokenizer(BertTokenizer, folder)
    torch.manual_seed(SEED)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=size,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=MAX_LENGTH,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    fit(model, masked_batches(tokenizer, SEED), steps=steps, optimizers=[adamw(model.parameters(), 2e-3)])
    loss, accuracy = held_out(model, masked_batches(tokenizer, SEED + 1))
    save_half(model, folder)
    return {
        "seed": SEED,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "vocabulary": size,
        "masked_loss": round(loss, 4),
        "masked_accuracy": round(accuracy, 4),
    }
