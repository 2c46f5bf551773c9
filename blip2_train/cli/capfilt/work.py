"""What each process of a CapFilt does with batch after batch of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blip2_train.cli.capfilt.models import CapFiltModels, load
from blip2_train.data.order import stable_seed
from blip2_train.data.prepare.examination import usable_texts
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.source import PairSource, supports_read_ahead
from blip2_train.errors import ShardError


@dataclass(frozen=True, kw_only=True)
class CapFiltWork:
    """Writes and ranks the captions of a batch of samples."""

    source: PairSource
    models: CapFiltModels

    def __call__(self, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The best captions of each sample, with `caption_scores` and `caption_origins`.

        Raises:
            ShardError: if a sample can no longer be used.
            ConfigError: if a score is not finite.
        """
        images: list[Image.Image] = []
        originals: list[tuple[str, ...]] = []
        seeds: list[int] = []
        if supports_read_ahead(self.source):
            self.source.read_ahead(numbers.tolist())
        for number in numbers.tolist():
            location = self.source.sample_location(number)
            try:
                record = self.source.read(number)
                images.append(record.decoded())
                originals.append(usable_texts(record))
            except UnusableSample as problem:
                raise ShardError(
                    f"{location.file}: {location.key} changed while captions were written for it ({problem.reason}); "
                    "leave the source alone, and start again in an empty folder"
                ) from None
            seeds.append(stable_seed("capfilt", self.models.options.seed, location.shard, location.key))
        kept = load(self.models).capfilt(images, originals, seeds)
        return [
            {"captions": one.captions, "caption_scores": one.scores, "caption_origins": one.origins} for one in kept
        ]
