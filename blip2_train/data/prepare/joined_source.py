"""Several sources, one after the other, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blip2_train.data.printable_names import names_digest
from blip2_train.data.sources.source import PairSource, Record, SampleLocation, supports_read_ahead


class JoinedSource:
    """The samples of several sources, in the order of these.

    Args:
        parts: the sources.
        name: name of the whole in records.
    """

    def __init__(self, parts: Sequence[PairSource], name: str) -> None:
        self.name, self._parts = name, list(parts)
        self.rejected = tuple(sample for part in parts for sample in part.rejected)
        self.size, self.files = sum(part.size for part in parts), sum(part.files for part in parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample_location(self, number: int) -> SampleLocation:
        """Where sample `number` lies."""
        part, inner = self._part(number)
        return part.sample_location(inner)

    def read(self, number: int) -> Record:
        """Read sample `number`; raises what its source raises."""
        part, inner = self._part(number)
        return part.read(inner)

    def details(self, number: int) -> dict[str, Any]:
        """What its source knows of sample `number` beside its captions."""
        part, inner = self._part(number)
        return part.details(inner)

    @property
    def reads_ahead(self) -> bool:
        """Whether `read_ahead` is of use to one of the sources."""
        return any(supports_read_ahead(part) for part in self._parts)

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Ask for samples that will be read next, all at once."""
        wanted: dict[PairSource, list[int]] = {}
        for part, inner in map(self._part, numbers):
            wanted.setdefault(part, []).append(inner)
        for part, inners in wanted.items():
            if supports_read_ahead(part):
                part.read_ahead(inners)

    def fingerprint(self) -> str:
        """Hash of the sources' fingerprints and sizes, in order."""
        parts = [f"{part.fingerprint()}:{len(part)}" for part in self._parts]
        return names_digest(parts)

    def _part(self, number: int) -> tuple[PairSource, int]:
        """The source of a sample, and its number there."""
        place = int(np.searchsorted(self._ends, number, side="right"))
        part = self._parts[place]
        return part, number - (int(self._ends[place]) - len(part))
