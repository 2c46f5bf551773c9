"""The positions of the global order that each process reads in each micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import Sampler

from blip2_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """How a global batch is split into the micro-batches of the processes."""

    global_batch_size: int
    """Samples per optimiser step."""
    world_size: int = 1
    """Processes."""
    accumulate: int = 1
    """Micro-batches per optimiser step and process."""

    def __post_init__(self) -> None:
        for name in ("global_batch_size", "world_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        parts = self.world_size * self.accumulate
        if self.global_batch_size % parts:
            below = self.global_batch_size // parts * parts
            nearest = f"{below} or {below + parts}" if below else f"{parts}"
            raise ConfigError(
                f"global_batch_size {self.global_batch_size} cannot be divided among {self.world_size} processes x "
                f"{self.accumulate} accumulated micro-batches; use {nearest}, or change accumulate or the devices"
            )

    def line(self, steps: int) -> str:
        """Steps and batches in few words."""
        return (
            f"steps: {steps:,} of {self.global_batch_size:,} samples "
            f"({self.world_size} x {self.accumulate} x {self.micro_batch_size}: processes, micro-batches, samples)"
        )

    @property
    def micro_batch_size(self) -> int:
        """Samples per process and micro-batch."""
        return self.global_batch_size // (self.world_size * self.accumulate)


class GlobalBatchSampler(Sampler[list[int]]):
    """The micro-batches of one process, as positions in the global order.

    Optimiser step s reads positions `s * G … s * G + G - 1` on any hardware; in its micro-batch a, process r reads the
    B positions from `s * G + (a * W + r) * B`. Every process has the same number of batches, by construction.

    Args:
        shape: sizes G, W and B.
        rank: rank of this process, 0 … W - 1.
        steps: optimiser steps of the whole run.
        first_step: optimiser steps done before (on resume).
    """

    def __init__(self, shape: BatchShape, rank: int, steps: int, first_step: int = 0) -> None:
        self._shape, self._rank, self._steps, self._first_step = shape, rank, steps, first_step

    def __len__(self) -> int:
        """Micro-batches of the whole run, also on resume: Lightning continues its count."""
        return self._steps * self._shape.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        return self._from(self._first_step * self._shape.accumulate, every=1)

    def following(self, position: int, every: int) -> Iterator[list[int]]:
        """The micro-batch that begins with `position`, and the next ones of the same reader, one of `every` readers."""
        step, inside = divmod(position, self._shape.global_batch_size)
        part = inside // (self._shape.world_size * self._shape.micro_batch_size)
        return self._from(step * self._shape.accumulate + part, every)

    def _from(self, first: int, every: int) -> Iterator[list[int]]:
        """Every `every`-th micro-batch from index `first`."""
        shape, size = self._shape, self._shape.micro_batch_size
        for batch in range(first, self._steps * shape.accumulate, every):
            step, part = divmod(batch, shape.accumulate)
            position = step * shape.global_batch_size + (part * shape.world_size + self._rank) * size
            yield list(range(position, position + size))
