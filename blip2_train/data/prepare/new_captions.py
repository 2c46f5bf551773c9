"""Replaces the captions of a source's samples, batch by batch, and keeps the new ones across interruptions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.prepare.engine import Engine
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.sources.source import PairSource

Entry = dict[str, Any]
"""New values of one sample: its `captions`, best first, and further fields of its record."""


@dataclass(frozen=True, kw_only=True)
class NewCaptions:
    """New captions for samples that can be used.

    Attributes:
        work: returns an entry for each of the given sample indices; picklable, and a pure function of the indices.
        settings: plain values on which the entries depend.
        batch_size: samples per call; entries may depend on it by rounding only.
        engine: runs the work.
    """

    work: Callable[[NDArray[np.int64]], Sequence[Entry]]
    settings: Mapping[str, Any]
    batch_size: int
    engine: Engine

    def run(
        self, source: PairSource, used: NDArray[np.int64], folder: Path, progress: Callable[[str, int, int], None]
    ) -> RecaptionedSource:
        """Write the entries that are missing.

        Args:
            source: source of the samples.
            used: indices of the usable samples, ascending.
            folder: folder of the entries until the shards are complete.
            progress: called with the name of the step, the number of completed samples, and the number of all.
        """
        entries = EntryFile(folder / "captions.jsonl", len(used), self.batch_size)
        left = (used[first : first + self.batch_size] for first in range(entries.written, len(used), self.batch_size))
        progress("caption", entries.written, len(used))
        for some in self.engine(self.work, left):
            entries.append(some)
            progress("caption", entries.written, len(used))
        return RecaptionedSource(source, used, entries)


class EntryFile:
    """A JSON line for each entry, and a file with the offsets of their ends, for random access.

    Incomplete data of a killed process is cut off when the file is opened.

    Args:
        path: file of the lines; their ends are in a file with the suffix `.ends`.
        entries: final number of entries.
        step: entries that are appended at a time; only whole steps are kept.
    """

    def __init__(self, path: Path, entries: int, step: int) -> None:
        self._lines, self._ends = path, path.with_suffix(".ends")
        for file in (self._lines, self._ends):
            file.touch()
        there = self._ends.stat().st_size // 8
        self.written = entries if there >= entries else there // step * step
        """Number of written entries, always the first ones."""
        os.truncate(self._ends, self.written * 8)
        os.truncate(self._lines, self._end(self.written))

    def append(self, entries: Sequence[Entry]) -> None:
        """Append entries. Their ends are written last: if they exist, the lines exist too."""
        lines = [json.dumps(entry).encode() + b"\n" for entry in entries]
        ends = self._end(self.written) + np.cumsum([len(line) for line in lines], dtype="<u8")
        for path, content in ((self._lines, b"".join(lines)), (self._ends, ends.astype("<u8").tobytes())):
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self.written += len(lines)

    def read(self, index: int) -> Entry:
        """Entry `index`."""
        start, end = self._end(index), self._end(index + 1)
        with self._lines.open("rb") as file:
            file.seek(start)
            entry: Entry = json.loads(file.read(end - start))
        return entry

    def _end(self, count: int) -> int:
        """Size of the first `count` lines, bytes."""
        if count == 0:
            return 0
        with self._ends.open("rb") as file:
            file.seek(8 * (count - 1))
            return int.from_bytes(file.read(8), "little")


class RecaptionedSource:
    """A source whose samples have other captions.

    Args:
        source: source of all other fields.
        used: indices of the samples that have entries, ascending.
        entries: one entry for each of them.
    """

    def __init__(self, source: PairSource, used: NDArray[np.int64], entries: EntryFile) -> None:
        self._source, self._used, self._entries = source, used, entries
        self.name, self.rejected, self.size, self.files = source.name, source.rejected, source.size, source.files

    def __len__(self) -> int:
        return len(self._source)

    def sample_location(self, index: int) -> SampleLocation:
        """The location of sample `index`."""
        return self._source.sample_location(index)

    def read(self, index: int) -> Record:
        """Sample `index` with its new captions; raises `UnusableSample`."""
        return replace(self._source.read(index), captions=tuple(self._entry(index)["captions"]))

    def details(self, index: int) -> dict[str, Any]:
        """The fields of sample `index` in the source, and those of its entry beside the captions."""
        return self._source.details(index) | {k: v for k, v in self._entry(index).items() if k != "captions"}

    def fingerprint(self) -> str:
        """The fingerprint of the source: the new captions follow from it and from the settings."""
        return self._source.fingerprint()

    def _entry(self, index: int) -> Entry:
        return self._entries.read(int(np.searchsorted(self._used, index)))
