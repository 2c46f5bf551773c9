"""Measures what the parts of a step take, time or counted arithmetic, and what the device can do at best."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode


class Meter(Protocol):
    """Divides what a step takes among its parts."""

    def start(self) -> None:
        """Begin a step."""
        ...

    def mark(self, part: str) -> None:
        """Mark the end of a part; it began where the one before ended."""
        ...

    def parts(self) -> dict[str, float]:
        """What each part took, in the order of their ends."""
        ...


class Clock:
    """Seconds; by events on a GPU, so that the parts of a step need no synchronisation between them."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._ends: list[tuple[str, Any]] = []
        self._worked: list[float] = []

    def start(self) -> None:
        """Wait for the device, then begin."""
        if self._on_gpu:
            torch.cuda.synchronize()
        self._ends, self._worked = [], []
        self.mark("")

    def mark(self, part: str) -> None:
        """End a part."""
        now: Any
        if self._on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
            self._worked.append(time.process_time())
        self._ends.append((part, now))

    def busy(self) -> float:
        """Processor time from the first to the last mark, seconds, all threads together; on a GPU 0.

        Unlike the time that passes, it does not grow when others use the processor too.
        """
        return 0.0 if self._on_gpu else self._worked[-1] - self._worked[0]

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
