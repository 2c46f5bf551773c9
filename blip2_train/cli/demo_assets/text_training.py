"""The training loop that the three tiny language models share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Batch = dict[str, Tensor]
HELD_OUT_BATCHES = 20


def fit(
    model: PreTrainedModel,
    batches: Iterator[Batch],
    *,
    steps: int,
    peak_rate: float,
    warmup_steps: int = 200,
    bfloat16: bool = False,
    embedding_noise: float = 0.0,
) -> None:
    """Minimise the model's own loss: AdamW, linear warm-up, cosine to a thousandth of the peak.

    With `embedding_noise`, token embeddings are disturbed by that many times their spread (as NEFTune, Jain et al.,
    2023, arXiv:2310.05914, does in fine-tuning): a tiny model then also reads what lies near a word, as a large one
    does.
    """
    shared = model.get_input_embeddings().weight  # T5's encoder and decoder have a module each around it
    disturbed = [
        module.register_forward_hook(
            lambda module, _, output: output + embedding_noise * module.weight.detach().std() * torch.randn_like(output)
        )
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.weight is shared
    ]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
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
    for hook in disturbed:
        hook.remove()


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
