"""The training loop that the tiny language models share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from blip2_train.system.screen import echo
from blip2_train.system.shared_files import share_as_usual

Batch = dict[str, Tensor]
HELD_OUT_BATCHES = 20
NOISE = 0.5
"""Disturbance of token embeddings in training, in units of their standard deviation."""
BLURRED_SHARE, WEAKEST, STRONGEST, LARGEST_MIXTURE = 0.7, 0.2, 1.5, 0.5
"""Share of the texts whose beginning is blurred; smallest and largest factor on a word, largest share of another."""

Disturbance = Callable[[Tensor, Tensor], Tensor]
"""From embeddings `(B, T, D)` of tokens, and those of all tokens `(V, D)`, to other embeddings `(B, T, D)`.

A tiny model that is trained so also reads what lies near a word, as a large one does by itself.
"""


def noise(embedded: Tensor, table: Tensor) -> Tensor:
    """Noise in units of the spread of all embeddings (NEFTune, Jain et al., 2023, arXiv:2310.05914)."""
    return embedded + NOISE * table.std() * torch.randn_like(embedded)


def blur_beginning(embedded: Tensor, table: Tensor) -> Tensor:
    """Make a text unclear up to a random position: words weaker or stronger, mixed with any other word, and noisy.

    So a model learns to read what a Q-Former gives in the beginning, as a large language model can.
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


def fit(
    model: PreTrainedModel,
    batches: Iterator[Batch],
    *,
    steps: int,
    optimizers: Sequence[torch.optim.Optimizer],
    warmup_steps: int = 200,
    bfloat16: bool = False,
    disturbance: Disturbance | None = None,
) -> None:
    """Minimise the model's own loss: linear warm-up to each group's own rate, cosine to a thousandth of it.

    Args:
        model: What is trained.
        batches: Its arguments, without end.
        steps: Steps of the optimisers.
        optimizers: Over the model's parameters, with their largest rates.
        warmup_steps: Steps until those are reached.
        bfloat16: Compute in mixed precision.
        disturbance: Of the token embeddings that the model reads.
    """
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    embedding = cast(nn.Embedding, reader.get_input_embeddings())
    if disturbance is not None:
        hook = embedding.register_forward_hook(lambda part, _, output: disturbance(output, part.weight.detach()))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [float(group["lr"]) for group in groups]
    model.train()
    started, total = time.monotonic(), 0.0
    for step in range(steps):
        factor = min(1.0, (step + 1) / warmup_steps) * 0.5 * (1.001 + math.cos(math.pi * step / steps))
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(**next(batches)).loss
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        total += loss.item()
        if (step + 1) % 200 == 0:
            name = type(model).__name__
            echo(f"{name} {step + 1}/{steps} loss {total / 200:.3f} {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0
    if disturbance is not None:
        hook.remove()


def adamw(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """AdamW as BERT and OPT are trained with."""
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def muon(model: PreTrainedModel, rate: float, other_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between the embeddings and AdamW, at `other_rate`, for everything else.

    With it a tiny OPT learns in a third of the steps to copy what it has read. Muon's steps are scaled to AdamW's size.
    """
    inner = [part for name, part in model.named_parameters() if part.ndim == 2 and "embed" not in name]
    outer = [part for name, part in model.named_parameters() if part.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        adamw(outer, other_rate),
    ]


@torch.no_grad()
def held_out(model: PreTrainedModel, batches: Iterator[Batch]) -> tuple[float, float]:
    """Mean loss per labelled token and share of them predicted rightly, on fresh batches.

    Labels are read in the model's own way: shifted by one for a decoder-only model.
    """
    model.train(False)
    shift = 0 if model.config.is_encoder_decoder or model.config.model_type == "bert" else 1
    loss, right, total = 0.0, 0, 0
    for _ in range(HELD_OUT_BATCHES):
        batch = next(batches)
        output = model(**batch)
        labels = batch["labels"][:, shift:]
        guesses = output.logits[:, : output.logits.shape[1] - shift].argmax(-1)
        known = labels != -100
        right, total = right + int((guesses == labels)[known].sum()), total + int(known.sum())
        loss += output.loss.item() * int(known.sum())
    return loss / total, right / total


def save_half(model: PreTrainedModel, folder: Path) -> None:
    """Write 16-bit weights in transformers' layout, with a configuration that names float32 for loading."""
    model.half().save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    share_as_usual(folder / "model.safetensors")
    settings["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
