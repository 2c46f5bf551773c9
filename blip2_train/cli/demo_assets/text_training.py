"""The training loop that the three tiny language models share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Batch = dict[str, Tensor]
HELD_OUT_BATCHES = 20


Disturbance = Callable[[Tensor, Tensor], Tensor]
"""From embeddings `(B, T, D)` of tokens, and those of all tokens `(V, D)`, to other embeddings `(B, T, D)`.

A tiny model that is trained so also reads what lies near a word, as a large one does by itself.
"""


def noise(strength: float) -> Disturbance:
    """Noise of that many times the spread of the embeddings (NEFTune, Jain et al., 2023, arXiv:2310.05914)."""
    return lambda embedded, table: embedded + strength * table.std() * torch.randn_like(embedded)


def fit(
    model: PreTrainedModel,
    batches: Iterator[Batch],
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    peak_rate: float,
    warmup_steps: int = 200,
    bfloat16: bool = False,
    disturbance: Disturbance | None = None,
) -> None:
    """Minimise the model's own loss: linear warm-up, cosine to a thousandth of the peak.

    Args:
        model: What is trained.
        batches: Its arguments, without end.
        steps: Steps of the optimiser.
        optimizer: Over the model's parameters; its rate is set here.
        peak_rate: The largest rate.
        warmup_steps: Steps until it is reached.
        bfloat16: Compute in mixed precision.
        disturbance: Of the token embeddings that the model reads.
    """
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    embedding = cast(nn.Embedding, reader.get_input_embeddings())
    if disturbance is not None:
        hook = embedding.register_forward_hook(lambda part, _, output: disturbance(output, part.weight.detach()))
    model.train()
    started, total = time.monotonic(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            cosine = 0.5 * (1.001 + math.cos(math.pi * step / steps))
            group["lr"] = peak_rate * min(1.0, (step + 1) / warmup_steps) * cosine
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(**next(batches)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % 200 == 0:
            name = type(model).__name__
            print(f"{name} {step + 1}/{steps} loss {total / 200:.3f} {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0
    if disturbance is not None:
        hook.remove()


def adamw(model: PreTrainedModel) -> torch.optim.Optimizer:
    """AdamW as BERT and OPT are trained with."""
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)


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
    """Write 16-bit weights in transformers' layout, with a configuration that asks for float32 when loaded."""
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    settings = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors").chmod(0o644)
    settings["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
