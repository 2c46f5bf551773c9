"""The sources of a training run, without what is held out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.sources.config import SourceConfig, open_source, source_weights
from blip2_train.data.sources.holdout import choose_held_out
from blip2_train.data.sources.source import CaptionSource


@dataclass(frozen=True, kw_only=True)
class TrainingSource:
    """A source without the samples that are held out, and its share in the mixture."""

    source: CaptionSource
    weight: float
    """In any unit."""
    held_out: NDArray[np.int64]
    """Sorted numbers of samples that are never trained on."""
    first_captions: int | None = None
    """Choose among this many captions; all if None."""

    def __len__(self) -> int:
        return len(self.source) - len(self.held_out)

    def number(self, place: int) -> int:
        """The sample at `place` when those held out are skipped."""
        skipped = np.searchsorted(self.held_out - np.arange(len(self.held_out)), place, side="right")
        return place + int(skipped)


def open_training_sources(configs: Sequence[SourceConfig], held_out: int) -> list[TrainingSource]:
    """Open every source, and hold `held_out` samples out of all together (at most a tenth).

    Raises:
        ConfigError: if the weights or names do not fit together.
        ShardError: if a source does not exist or holds no usable sample.
    """
    sources = [open_source(config) for config in configs]
    sizes = [len(source) for source in sources]
    weights, numbers = source_weights(configs, sizes), choose_held_out(sizes, held_out)
    return [
        TrainingSource(source=source, weight=weight, held_out=chosen, first_captions=config.first_captions)
        for source, weight, chosen, config in zip(sources, weights, numbers, configs, strict=True)
    ]
