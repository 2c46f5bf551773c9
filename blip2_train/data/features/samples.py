"""The samples whose images are stored as features, in one order, and the pass that finds their different images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.features.image_keys import CROPS, EVALUATION, image_key
from blip2_train.data.prepare.examination import VERDICT, Examined
from blip2_train.data.prepare.journal import find_duplicates
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.source import CaptionSource, supports_read_ahead
from blip2_train.data.stream.stream import rejection
from blip2_train.types import RejectedSample


@dataclass(frozen=True)
class ImageSet:
    """Samples of a source that a run trains on, or is validated on."""

    source: CaptionSource
    indices: NDArray[np.int64]
    """Of the samples in the source, ascending."""
    flags: int
    """`CROPS` for training, `EVALUATION` for validation."""

    @classmethod
    def whole(cls, source: CaptionSource, flags: int) -> Self:
        """All samples of a source."""
        return cls(source, np.arange(len(source)), flags)


class Samples:
    """The samples of several sets, one after the other.

    Args:
        sets: What a run reads.
    """

    def __init__(self, sets: Sequence[ImageSet]) -> None:
        self._sets = [one for one in sets if len(one.indices)]
        self._ends = np.cumsum([len(one.indices) for one in self._sets], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, index: int) -> Record:
        """Sample `index`; raises `UnusableSample`."""
        source, inside = self._find(index)
        return source.read(inside)

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Fetch samples that are read next, where that is faster."""
        by_set: dict[int, list[int]] = {}
        for index in indices:
            by_set.setdefault(int(np.searchsorted(self._ends, index, side="right")), []).append(index)
        for chosen, some in by_set.items():
            if supports_read_ahead(source := self._sets[chosen].source):
                source.read_ahead([self._find(index)[1] for index in some])

    def location(self, index: int) -> SampleLocation:
        """Where sample `index` lies."""
        source, inside = self._find(index)
        return source.sample_location(inside)

    def rejected(self, index: int, problem: UnusableSample) -> Examined:
        """The record of an unusable sample."""
        source, inside = self._find(index)
        return Examined(np.zeros(1, VERDICT), ((index, rejection(source, inside, problem)),))

    def flags(self) -> NDArray[np.uint8]:
        """Of each sample, what its image is needed for."""
        return np.repeat(
            np.array([one.flags for one in self._sets], np.uint8), [len(one.indices) for one in self._sets]
        )

    def fingerprints(self) -> dict[str, str]:
        """Of each set, what changes when its samples do, by the name of its source."""
        names = {CROPS: "trained on", EVALUATION: "validated on"}
        return {
            f"{one.source.name}, {names[one.flags]}": f"{len(one.indices)} samples, hash {one.source.fingerprint()}"
            for one in self._sets
        }

    def _find(self, index: int) -> tuple[CaptionSource, int]:
        chosen = int(np.searchsorted(self._ends, index, side="right"))
        one = self._sets[chosen]
        return one.source, int(one.indices[index - (int(self._ends[chosen]) - len(one.indices))])


class ImageListing:
    """Finds the keys of samples' images; nothing is decoded.

    Args:
        samples: The samples.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __call__(self, indices: range) -> Examined:
        """The verdicts on samples, of which only `good` and `digest`, the image's key, are filled in."""
        verdicts = np.zeros(len(indices), VERDICT)
        rejected: list[tuple[int, RejectedSample]] = []
        self._samples.read_ahead(indices)
        for position, index in enumerate(indices):
            try:
                record = self._samples.read(index)
                verdicts[position] = 1, 0, 0, image_key(record.image, record.orientation)
            except UnusableSample as problem:
                rejected += self._samples.rejected(index, problem).rejected
        return Examined(verdicts, tuple(rejected))


def different_images(
    verdicts: NDArray[np.void], flags: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The first sample of each image, ascending, and what any of its samples needs the image for.

    Args:
        verdicts: Row of `VERDICT` for each sample.
        flags: Likewise.

    Example:
        >>> rows = np.zeros(3, VERDICT)
        >>> rows["good"], rows["digest"][:, 0] = 1, [7, 8, 7]
        >>> [part.tolist() for part in different_images(rows, np.array([1, 1, 2], np.uint8))]
        [[0, 1], [3, 1]]
    """
    again, firsts = find_duplicates(verdicts)
    joined = flags.copy()
    np.bitwise_or.at(joined, firsts, flags[again])
    alone = verdicts["good"].astype(bool)
    alone[again] = False
    chosen = np.flatnonzero(alone)
    return chosen, joined[chosen]
