"""Trains the tiny OPT and the tiny T5 on the world's sentences and questions, without any picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.optimization import Adafactor

from blip2_train.cli.demo_assets.text_training import (
    Batch,
    adamw,
    fit,
    held_out,
    noise,
    save_half,
)
from blip2_train.cli.demo_assets.texts import batches_by_length, language_model_texts
from blip2_train.cli.demo_assets.word_pieces import MAX_LENGTH, SENTINELS, make_opt_tokenizer, make_t5_tokenizer

OPT_SEED, T5_SEED, BATCH_SIZE = 6, 7, 64
SPAN_SHARE = 0.2
"""Share of T5's examples that hide spans of the text; the others continue it from a random place of its first half."""
HIDDEN_SHARE, SPAN_WORDS = 0.25, 2
NOISE = 0.5
"""Disturbance of token embeddings in training, in units of their standard deviation."""
LISTS = 5
"""Lists of key words with a caption that T5 reads for every scene, beside what OPT reads."""
BLURRED_SHARE, WEAKEST, STRONGEST, LARGEST_MIXTURE = 0.7, 0.2, 1.5, 0.5
"""Share of T5's texts whose beginning is blurred; smallest and largest factor on a word, largest share of another."""


def causal_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """Endless batches of `</s>`, a sentence and a line end, right padded."""
    generator = np.random.default_rng([seed, 2])
    separator = str(tokenizer.eos_token)
    for texts in batches_by_length(language_model_texts(seed, separator), BATCH_SIZE, generator):
        batch = tokenizer(
            [f"{text}\n" for text in texts],
            padding="longest",
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[:, 0] = -100
        yield {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def split_example(text: str, generator: np.random.Generator) -> tuple[str, str]:
    """What T5 reads and what it answers: a prompt and its answer, a beginning and the rest, or a text and its gaps.

    A context, which ends with a line end, is read as a whole.
    """
    if "Question:" in text:
        prompt, answer = text.rsplit("nswer: ", 1)
        return f"{prompt}nswer:", answer
    context, end, rest = text.rpartition("\n")
    words = rest.split()
    if generator.random() >= SPAN_SHARE:
        cut = int(generator.integers(0, len(words) // 2 + 1))
        read, answer = " ".join(words[:cut]), " ".join(words[cut:])
    else:
        read, answer = hide_spans(words, generator)
    return context + end + read, answer


def hide_spans(words: list[str], generator: np.random.Generator) -> tuple[str, str]:
    """The text with spans replaced by sentinels, and the sentinels followed by what they hide.

    Source: T5 (Raffel et al., 2019, arXiv:1910.10683), section 3.1.4.
    """
    spans = max(1, round(len(words) * HIDDEN_SHARE / SPAN_WORDS))
    starts = sorted(generator.choice(len(words), size=spans, replace=False).tolist())
    shown: list[str] = []
    hidden: list[str] = []
    position = number = 0
    for start in starts:
        if start < position:
            continue
        end = min(start + SPAN_WORDS, len(words))
        shown += [*words[position:start], SENTINELS[number]]
        hidden += [SENTINELS[number], *words[start:end]]
        position, number = end, number + 1
    return " ".join([*shown, *words[position:]]), " ".join([*hidden, SENTINELS[number]])


def sequence_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """Endless batches of what T5 reads and what it is to answer, right padded."""
    generator = np.random.default_rng([seed, 2])
    for texts in batches_by_length(language_model_texts(seed, "\n", lists=LISTS), BATCH_SIZE, generator):
        read, answers = zip(*(split_example(text, generator) for text in texts), strict=True)
        options = {"padding": "longest", "truncation": True, "max_length": MAX_LENGTH, "return_tensors": "pt"}
        source, target = tokenizer(list(read), **options), tokenizer(list(answers), **options)
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
        yield {"input_ids": source["input_ids"], "attention_mask": source["attention_mask"], "labels": labels}


def blur_beginning(embedded: Tensor, table: Tensor) -> Tensor:
    """Make a text unclear up to a random place: words weaker or stronger, mixed with any other word, and noisy.

    So T5 learns to read what a Q-Former can say in the beginning, as a large language model can.
    """
    rows, length, size = embedded.shape
    factor = torch.empty(rows, length, 1).uniform_(math.log(WEAKEST), math.log(STRONGEST)).exp()
    others = table[torch.randint(len(table), (rows, length))]
    mixture = LARGEST_MIXTURE * torch.rand(rows, 1, 1) * torch.rand(rows, length, 1)
    noisy = NOISE * table.std() * torch.rand(rows, 1, 1) * torch.randn(rows, length, size)
    unclear = (torch.rand(rows, 1, 1) < BLURRED_SHARE) & (
        torch.arange(length)[:, None] < length * torch.rand(rows, 1, 1)
    )
    return torch.where(unclear, factor * torch.lerp(embedded, others, mixture) + noisy, embedded)


def make_opt(assets: Path, *, steps: int = 6000) -> dict[str, Any]:
    """Write `opt/`: tokenizer, configuration and 16-bit weights; returns the figures for the manifest."""
    folder = assets / "opt"
    size = make_opt_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(OPT_SEED)
    config = OPTConfig(
        vocab_size=size,
        hidden_size=160,
        word_embed_proj_dim=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        ffn_dim=640,
        max_position_embeddings=256,
        dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = OPTForCausalLM(config)
    model.set_attn_implementation("eager")  # on a CPU in bfloat16 twice as fast as the fused kernel
    batches = causal_batches(tokenizer, OPT_SEED)
    fit(model, batches, steps=steps, optimizer=adamw(model), peak_rate=2e-3, bfloat16=True, disturbance=noise(NOISE))
    return _finish(model, tokenizer, folder, causal_batches(tokenizer, OPT_SEED + 100), OPT_SEED, steps, size)


def make_t5(assets: Path, *, steps: int = 4800) -> dict[str, Any]:
    """Write `t5/`: tokenizer, configuration and 16-bit weights; returns the figures for the manifest."""
    folder = assets / "t5"
    size = make_t5_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(T5_SEED)
    config = T5Config(
        vocab_size=size,
        d_model=128,
        d_kv=32,
        d_ff=512,
        dropout_rate=0.0,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    model = T5ForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    batches = sequence_batches(tokenizer, T5_SEED)
    # Its matrices differ in size a hundredfold, so steps are relative to them, as in T5's own training; with AdamW it
    # never learns to copy from what it reads. It learns that far sooner without disturbance.
    for share, rate, disturbance in ((0.75, 2e-2, None), (0.25, 1e-2, blur_beginning)):
        optimizer: Any = Adafactor(model.parameters(), lr=rate, relative_step=False)  # type: ignore[no-untyped-call]
        part = round(share * steps)
        fit(model, batches, steps=part, optimizer=optimizer, peak_rate=rate, bfloat16=True, disturbance=disturbance)
    return _finish(model, tokenizer, folder, sequence_batches(tokenizer, T5_SEED + 100), T5_SEED, steps, size)


@torch.no_grad()
def answer_accuracy(
    model: OPTForCausalLM | T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, seed: int, count: int = 300
) -> float:
    """Share of questions after a caption of their scene that the model answers in the right words, greedily."""
    generator, right = np.random.default_rng(seed), 0
    generate: Any = getattr(model, "generate")  # noqa: B009 (its type in transformers fits no model)
    texts = (text for text in language_model_texts(seed) if " Question:" in text)
    line_end = tokenizer("\n", add_special_tokens=False).input_ids[-1]
    for text in islice(texts, count):
        prompt, answer = split_example(text, generator)
        batch = tokenizer(prompt, return_tensors="pt")
        options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
        if not model.config.is_encoder_decoder:
            options |= {"eos_token_id": line_end, "pad_token_id": tokenizer.pad_token_id}
        said = generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options)[0]
        if not model.config.is_encoder_decoder:
            said = said[batch["input_ids"].shape[1] :]
        right += str(tokenizer.decode(said, skip_special_tokens=True)).strip() == answer
    return right / count


def _finish(
    model: OPTForCausalLM | T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    batches: Iterator[Batch],
    seed: int,
    steps: int,
    size: int,
) -> dict[str, Any]:
    loss, accuracy = held_out(model, batches)
    answered = answer_accuracy(model, tokenizer, seed + 200)
    parameters = sum(p.numel() for p in model.parameters())
    save_half(model, folder)
    return {
        "seed": seed,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "vocabulary": size,
        "parameters": parameters,
        "perplexity": round(math.exp(loss), 3),
        "token_accuracy": round(accuracy, 4),
        "answer_accuracy": round(answered, 4),
    }
