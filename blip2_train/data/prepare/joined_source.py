"""Several sources, concatenated to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blip2_train.data.printable_names import names_digest
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.sources.source import PairSource, supports_read_ahead


class JoinedSource:
    """The samples of several sources, in the order of the sources.

    Args:
        parts: the sources.
        name: name of the joined source in records.
    """

    def __init__(self, parts: Sequence[PairSource], name: str) -> None:
        self.name, self._parts = name, list(parts)
        self.rejected = tuple(sample for part in parts for sample in part.rejected)
        self.size, self.files = sum(part.size for part in parts), sum(part.files for part in parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample_location(self, index: int) -> SampleLocation:
        """The location of sample `index`."""
        part, inner = self._part(index)
        return part.sample_location(inner)

    def read(self, index: int) -> Record:
        """Read sample `index`; raises what its source raises."""
        part, inner = self._part(index)
        return part.read(inner)

    def details(self, index: int) -> dict[str, Any]:
        """The fields of sample `index` beside its captions, from its source."""
        part, inner = self._part(index)
        return part.details(inner)

    @property
    def reads_ahead(self) -> bool:
        """Whether `read_ahead` is faster for one of the sources."""
        return any(supports_read_ahead(part) for part in self._parts)

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Fetch the samples that will be read next, all at once."""
        indices_by_part: dict[PairSource, list[int]] = {}
        for part, inner in map(self._part, indices):
            indices_by_part.setdefault(part, []).append(inner)
        for part, inners in indices_by_part.items():
            if supports_read_ahead(part):
                part.read_ahead(inners)

    def fingerprint(self) -> str:
        """Hash of the sources' fingerprints and sizes, in order."""
        parts = [f"{part.fingerprint()}:{len(part)}" for part in self._parts]
        return names_digest(parts)

    def _part(self, index: int) -> tuple[PairSource, int]:
        """The source of a sample, and its index in that source."""
        position = int(np.searchsorted(self._ends, index, side="right"))
        part = self._parts[position]
        return part, index - (int(self._ends[position]) - len(part))
