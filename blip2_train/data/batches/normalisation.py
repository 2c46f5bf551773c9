"""Levels of pixels as a vision tower reads them: scaled to 0 … 1, minus a mean, divided by a deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from blip2_train.errors import ConfigError
from blip2_train.types import Batch

AnyBatch = TypeVar("AnyBatch", bound=Batch)


class Normalisation:
    """Normalises on the device of the pixels, with the same bits on every device and for any number of images.

    So batches can travel as levels of 255, a quarter of the bytes, and be normalised where they are used.

    Args:
        mean: per channel, of values in 0 … 1.
        std: per channel.

    Raises:
        ConfigError: if there are not three of each, or a deviation is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(f"mean and std need three numbers each, std positive; got {list(mean)} and {list(std)}")
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, levels: Tensor) -> Tensor:
        """Pixel values of levels `(…, 3, H, W)`, uint8, as float32 of the same shape."""
        if self._mean.device != levels.device:
            self._mean, self._std = self._mean.to(levels.device), self._std.to(levels.device)
        return levels.to(torch.float32).mul_(1 / 255).sub_(self._mean).div_(self._std)

    def batch(self, batch: AnyBatch) -> AnyBatch:
        """A batch of pixel values; the same batch if it holds no levels (uint8) but what was computed from them."""
        if batch.pixel_values.dtype != torch.uint8:
            return batch
        return replace(batch, pixel_values=self(batch.pixel_values))
