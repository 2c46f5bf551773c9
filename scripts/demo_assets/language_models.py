"""Trains the two tiny OPTs and the tiny T5 on the world's sentences and questions, without any image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.optimization import Adafactor

from blip2_train.from_transformers import load_tokenizer
from demo_assets.exercises import ANSWERS, exercises
from demo_assets.text_training import (
    Batch,
    adamw,
    blur_beginning,
    fit,
    held_out,
    muon,
    noise,
    save_half,
)
from demo_assets.texts import batches_by_length, language_model_texts
from demo_assets.word_pieces import MAX_LENGTH, SENTINELS, make_opt_tokenizer, make_t5_tokenizer

OPT_SEED, T5_SEED, BATCH_SIZE = 6, 7, 64
ANSWERED_LENGTH = 128
"""Tokens of a text with all its questions."""
SPAN_SHARE = 0.2
"""Share of T5's examples that hide spans of the text; the others continue it from a position in its first half."""
HIDDEN_SHARE, SPAN_WORDS = 0.25, 2
LISTS = 5
"""Lists of key words with a caption that T5 reads for every scene, beside what OPT reads."""


def causal_batches(
    tokenizer: PreTrainedTokenizerBase, texts: Iterator[str], seed: int, *, answers_only: bool
) -> Iterator[Batch]:
    """Endless batches of `</s>` and a text, right padded.

    Args:
        tokenizer: OPT's.
        texts: Without end, each ending with a line end.
        seed: Of the order of batches.
        answers_only: Whether texts with questions have labels at their answers only.
    """
    generator = np.random.default_rng([seed, 2])
    for chosen in batches_by_length(texts, BATCH_SIZE, generator):
        batch = tokenizer(
            chosen,
            padding="longest",
            truncation=True,
            max_length=ANSWERED_LENGTH if answers_only else MAX_LENGTH,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[:, 0] = -100
        if answers_only:
            for text, row, (starts, ends) in zip(chosen, labels, batch["offset_mapping"].transpose(1, 2), strict=True):
                if spans := [match.span(1) for match in ANSWERS.finditer(text)]:
                    answers = [(start <= starts) & (ends <= end) & (starts < ends) for start, end in spans]
                    row[~torch.stack(answers).any(0)] = -100
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


def make_opt(assets: Path, *, steps: int = 6000) -> dict[str, Any]:
    """Write `opt/`: tokenizer, configuration and 16-bit weights; returns the figures for the manifest."""
    model, tokenizer = _new_opt(assets / "opt")

    def batches(seed: int) -> Iterator[Batch]:
        texts = (f"{text}\n" for text in language_model_texts(seed, str(tokenizer.eos_token)))
        return causal_batches(tokenizer, texts, seed, answers_only=False)

    optimizers = [adamw(model.parameters(), 2e-3)]
    fit(model, batches(OPT_SEED), steps=steps, optimizers=optimizers, bfloat16=True, disturbance=noise)
    return _finish(model, tokenizer, assets / "opt", batches(OPT_SEED + 100), OPT_SEED, steps)


def make_opt_instruct(assets: Path, *, steps: int = 4000) -> dict[str, Any]:
    """Write `opt_instruct/`, an OPT that is taught to answer, as FlanT5 is beside T5; returns its figures."""
    model, tokenizer = _new_opt(assets / "opt_instruct")

    def batches(seed: int) -> Iterator[Batch]:
        return causal_batches(tokenizer, exercises(seed, str(tokenizer.eos_token)), seed, answers_only=True)

    seen = batches(OPT_SEED)
    for share, disturbance in ((0.75, None), (0.25, blur_beginning)):
        optimizers = muon(model, rate=3e-3, other_rate=2e-3)
        fit(model, seen, steps=round(share * steps), optimizers=optimizers, bfloat16=True, disturbance=disturbance)
    return _finish(model, tokenizer, assets / "opt_instruct", batches(OPT_SEED + 100), OPT_SEED, steps)


def _new_opt(folder: Path) -> tuple[OPTForCausalLM, PreTrainedTokenizerBase]:
    """An OPT with random weights, and its tokenizer, which is written to the folder."""
    size = make_opt_tokenizer(folder)
    tokenizer = load_tokenizer(AutoTokenizer, folder)
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
    return model, tokenizer


def make_t5(assets: Path, *, steps: int = 4800) -> dict[str, Any]:
    """Write `t5/`: tokenizer, configuration and 16-bit weights; returns the figures for the manifest."""
    folder = assets / "t5"
    size = make_t5_tokenizer(folder)
    tokenizer = load_tokenizer(AutoTokenizer, folder)
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
        optimizer: Any = Adafactor(model.parameters(), lr=rate, relative_step=False)
        fit(model, batches, steps=round(share * steps), optimizers=[optimizer], bfloat16=True, disturbance=disturbance)
    return _finish(model, tokenizer, folder, sequence_batches(tokenizer, T5_SEED + 100), T5_SEED, steps)


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
        generated = generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options)[0]
        if not model.config.is_encoder_decoder:
            generated = generated[batch["input_ids"].shape[1] :]
        right += str(tokenizer.decode(generated, skip_special_tokens=True)).strip() == answer
    return right / count


def _finish(
    model: OPTForCausalLM | T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    batches: Iterator[Batch],
    seed: int,
    steps: int,
) -> dict[str, Any]:
    loss, accuracy = held_out(model, batches)
    figures = {
        "seed": seed,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "vocabulary": model.config.vocab_size,
        "parameters": model.num_parameters(),
        "perplexity": round(math.exp(loss), 3),
        "token_accuracy": round(accuracy, 4),
        "answer_accuracy": round(answer_accuracy(model, tokenizer, seed + 200), 4),
    }
    save_half(model, folder)
    return figures
