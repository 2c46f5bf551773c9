"""Measures what the parts of a step take: time, counted arithmetic, memory; and what the device can do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


class Meter(Protocol):
    """Divides what a step takes among its parts."""

    def start(self) -> None:
        """Begin a step."""
        ...

    def mark(self, part: str) -> None:
        """Say that a part ends here; it began where the one before ended."""
        ...

    def parts(self) -> dict[str, float]:
        """What each part took, in the order of their ends."""
        ...


class Clock:
    """Seconds; by events on a GPU, so that the parts of a step need no synchronisation between them."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._ends: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Wait for the device, then begin."""
        if self._on_gpu:
            torch.cuda.synchronize()
        self._ends = []
        self.mark("")

    def mark(self, part: str) -> None:
        """End a part."""
        now: Any
        if self._on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self._ends.append((part, now))

    def parts(self) -> dict[str, float]:
        """Seconds of each part; waits for the device."""
        if self._on_gpu:
            torch.cuda.synchronize()
        pairs = zip(self._ends, self._ends[1:], strict=False)
        return {
            part: before.elapsed_time(end) / 1e3 if self._on_gpu else end - before for (_, before), (part, end) in pairs
        }


class FlopMeter:
    """Counted floating-point operations, a multiply-add as 2; matrix products and convolutions only."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self._counter = counter
        self._ends: list[tuple[str, int]] = []

    def start(self) -> None:
        """Begin."""
        self._ends = []
        self.mark("")

    def mark(self, part: str) -> None:
        """End a part."""
        self._ends.append((part, self._counter.get_total_flops()))

    def parts(self) -> dict[str, float]:
        """Operations of each part."""
        return {part: float(end - before) for (_, before), (part, end) in zip(self._ends, self._ends[1:], strict=False)}


def peak_memory(step: Callable[[], None], device: torch.device) -> tuple[int, str]:
    """Bytes that a step needs, and what they are.

    On a GPU the most that was allocated during the step, weights and optimiser included; on a CPU, where no such number
    exists, the tensors that the forward pass keeps for the backward pass, each storage counted once.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(), "most allocated"
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storages.values()), "kept for backward"


def matmul_ceiling(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> float:
    """FLOP/s of square matrix products, the best of several: what a step can hope for."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    clock, seconds = Clock(device), []
    for _ in range(repeats):
        clock.start()
        a @ b
        clock.mark("product")
        seconds.append(clock.parts()["product"])
    return 2 * size**3 / min(seconds)


def median_parts(steps: list[dict[str, float]]) -> dict[str, float]:
    """Median over steps of each part."""
    return {part: statistics.median(step[part] for step in steps) for part in steps[0]}
