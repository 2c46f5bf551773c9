"""What one training step of a recipe takes beside weights and optimiser, counted without making one weight.

The real step (the recipe's model and objective, forward and backward) runs on tensors that have shapes and no values,
for two sizes of the micro-batch; what lies between and beyond is on the line through both. Every text has as many
tokens as it may have. torch's fake tensors have no public name. Tried with torch 2.14.1. Shape letters: B micro-batch,
T text tokens, Q queries, H heads, L tokens that attend, S tokens that are attended to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.step_memory import Kept, MostAlive
from blip2_train.types import Batch

SIZES = (32, 64)
"""Micro-batches that are counted: large enough that the chunk of the vocabulary head is full in both."""
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
RESERVED = 1.5 * 2**30
"""Bytes of a GPU that CUDA, its libraries and the exchange between processes take."""
FRAGMENTS = 0.05
"""Share of a GPU's memory that lies between what is in use."""
CARDS = (24, 40, 80, 141)
"""GPUs, by the GB on their names, which are nearly GiB."""


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """Bytes of a step as a function of its micro-batch."""

    kept_fixed: float
    kept_per_sample: float
    """Of what the forward pass keeps for the backward pass."""
    most_fixed: float
    most_per_sample: float
    """Of all tensors that exist at a time at most: what is kept, what is being computed, and the batch itself."""
    most_per_step_sample: float = 0.0
    """Of each sample of a process's whole step, if its micro-batches are contrasted together: the tower's features."""

    def kept(self, micro_batch: int) -> int:
        """Bytes kept for the backward pass."""
        return round(self.kept_fixed + micro_batch * self.kept_per_sample)

    def most(self, micro_batch: int, step_samples: int = 0) -> int:
        """Bytes of all tensors, at most, beside weights, gradients and the optimiser's moments.

        Args:
            micro_batch: Samples.
            step_samples: Those of all micro-batches of a step in one process, if they are several.
        """
        several = step_samples * self.most_per_step_sample
        return round(self.most_fixed + micro_batch * self.most_per_sample + several)

    def largest_micro_batch(self, left: float, step_samples: int = 0) -> int:
        """The most samples for which `left` bytes suffice; 0 = not even one.

        Args:
            left: Bytes.
            step_samples: Those of a whole step in one process, several micro-batches if they do not fit at once.

        Example:
            >>> PlannedStep(kept_fixed=0, kept_per_sample=2, most_fixed=4, most_per_sample=3).largest_micro_batch(11)
            2
        """
        alone = int((left - self.most_fixed) // self.most_per_sample)
        if not self.most_per_step_sample or alone >= step_samples:
            return max(0, alone)
        left -= step_samples * self.most_per_step_sample
        return max(0, int((left - self.most_fixed) // self.most_per_sample))


def usable_bytes(gigabytes: float) -> float:
    """What a GPU of so many GB leaves for tensors, bytes.

    Example:
        >>> round(usable_bytes(80) / 2**30, 2)
        74.5
    """
    return gigabytes * 2**30 * (1 - FRAGMENTS) - RESERVED


def plan_step(
    model: Blip2Model,
    objective: Any,
    max_text_length: int,
    precision: str,
    *,
    on_gpu: bool,
    sizes: tuple[int, int] = SIZES,
) -> PlannedStep:
    """Count what a step takes.

    Args:
        model: On the meta device, with its adapters; left as it is.
        objective: Its loss.
        max_text_length: Tokens of every text.
        precision: The trainer's: `32-true`, `bf16-mixed` or `16-mixed`.
        on_gpu: Whether attention and dropout keep what they keep on a GPU, or what they keep on a CPU.
        sizes: The micro-batches that are counted.
    """
    model = copy.deepcopy(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu").train()
        for parameter in model.parameters():
            if parameter.requires_grad:  # gradients exist already, as in every step but the first
                parameter.grad = torch.empty_like(parameter)
        counts = [_count(model, objective, size, max_text_length, precision, on_gpu) for size in sizes]
        whole = _count_whole_step(model, objective, sizes[0], max_text_length, precision)
    lines = [_line(sizes, values) for values in zip(*counts, strict=True)]
    (kept_fixed, kept_each), (most_fixed, most_each) = lines
    return PlannedStep(
        kept_fixed=kept_fixed,
        kept_per_sample=kept_each,
        most_fixed=most_fixed,
        most_per_sample=most_each,
        most_per_step_sample=whole,
    )


def full_batch(model: Blip2Model, batch_type: type[Batch], size: int, max_text_length: int) -> Batch:
    """A batch in which every text is as long as it may be, and everything that can have a label has one.

    It holds images, or, for a tower that reads stored features, these.
    """
    tower, image_size = model.vision_model, model.vision_config.image_size
    pixel_values = torch.zeros(size, 3, image_size, image_size)
    if tower.reads_features:
        patches = tower.num_prefix_tokens + math.prod(tower.grid_size)
        pixel_values = torch.zeros(size, 1, patches, tower.width, dtype=tower.dtype)
    ids = torch.zeros(size, max_text_length, dtype=torch.int64)
    values: dict[str, Any] = {
        "pixel_values": pixel_values,
        "image_ids": torch.arange(size),
        "sample_ids": ("",) * size,
        "rejected": (),
        "input_ids": ids,
        "attention_mask": torch.ones(size, max_text_length, dtype=torch.bool),
        "longest_text": max_text_length,
        "labels": ids.clone(),
        "target_positions": torch.arange(ids.numel()),
        "references": ((),) * size,
        "qformer_input_ids": ids.clone(),
        "qformer_attention_mask": torch.ones(size, max_text_length, dtype=torch.bool),
        **dict.fromkeys(("questions", "question_types"), ("",) * size),
        "question_ids": tuple(range(size)),
    }
    return batch_type(**{field.name: values[field.name] for field in fields(batch_type) if field.name in values})


def _count(
    model: Blip2Model,
    objective: Any,
    size: int,
    max_text_length: int,
    precision: str,
    on_gpu: bool,
) -> tuple[int, int]:
    generator = torch.Generator().manual_seed(0)
    kept = Kept(model)
    with MostAlive() as alive, _as_on_gpu() if on_gpu else nullcontext():
        batch = full_batch(model, objective.batch_type, size, max_text_length)
        with kept.counting(), autocast(precision):
            loss = objective(model, batch, generator).total
        loss.backward()
    return kept.bytes, alive.most


def _count_whole_step(model: Any, objective: Any, size: int, max_text_length: int, precision: str) -> float:
    """Bytes that contrast over all micro-batches of a step keeps of each sample between its passes; 0 = nothing.

    Beside the features of a frozen tower: the gradients of image and text features, and the texts.
    """
    if getattr(objective, "contrast", "micro") != "batch":
        return 0.0
    batch: Any = full_batch(model, objective.batch_type, size, max_text_length)
    with torch.no_grad(), autocast(precision):
        images = model.encode_image(batch.pixel_values)
        texts = model.encode_text(batch.input_ids, batch.attention_mask)
    kept = [images.image_features, texts, batch.input_ids, batch.attention_mask]
    kept += [images.patch_features] if model.vision_model.frozen else []
    return sum(tensor.numel() * tensor.element_size() for tensor in kept) / size


def autocast(precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of a trainer's precision, on a CPU."""
    dtype = _AUTOCAST.get(precision)
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def _line(sizes: tuple[int, int], values: tuple[int, int]) -> tuple[float, float]:
    """Value at 0 and slope of the line through two points."""
    slope = (values[1] - values[0]) / (sizes[1] - sizes[0])
    return values[0] - slope * sizes[0], slope


@contextmanager
def _as_on_gpu() -> Iterator[None]:
    """Let attention and dropout on a CPU keep what the fused kernels of a GPU keep.

    On a CPU, attention with dropout is computed step by step and keeps its weights, and dropout keeps numbers instead
    of one byte for each. (A mode that overrides functions would not reach blocks that are computed again.)
    """
    functional: Any = F
    own = functional.scaled_dot_product_attention, functional.dropout
    functional.scaled_dot_product_attention, functional.dropout = _fused_attention, _fused_dropout
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.dropout = own


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention of `(B, H, L, D)` queries by the kernel that saves memory, which takes a bias in place of a mask."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    bias = attn_mask
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(~bias, -torch.inf)
        bias = bias.expand(*query.shape[:3], key.shape[2])
    keep = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    attended: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, keep, dropout_p, is_causal, scale=scale
    )[0]
    return attended


def _fused_dropout(states: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0.0:
        return states
    dropped: Tensor = torch.native_dropout(states, p, True)[0]
    return dropped
