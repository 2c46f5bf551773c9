"""Measures the memory that a step needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from blip2_train.models.step_memory import Kept, MostAlive


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes that a step needs, and what they are."""

    peak_bytes: int
    peak_kind: str
    """What `peak_bytes` counts."""
    alive_bytes: int | None
    """On a CPU, the most that tensors took at a time, without those that were there before, like weights."""


def step_memory(step: Callable[[], object], model: nn.Module, device: torch.device) -> StepMemory:
    """Memory of a step of a model.

    On a GPU the most that was allocated during the step, weights and optimiser included; on a CPU, where no such number
    exists, the tensors that the forward pass keeps for the backward pass, weights left out, each storage counted once.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        most = torch.cuda.max_memory_allocated()
        return StepMemory(peak_bytes=most, peak_kind="most allocated", alive_bytes=None)
    kept = Kept(model)
    with MostAlive() as alive, kept.counting():
        step()
    return StepMemory(peak_bytes=kept.bytes, peak_kind="kept for backward", alive_bytes=alive.most)
