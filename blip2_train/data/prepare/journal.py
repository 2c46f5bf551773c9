"""The verdicts on samples, kept on disk, so that an interrupted examination continues where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.prepare.examination import VERDICT, Examined
from blip2_train.types import RejectedSample

CHUNK = 256
"""Samples that are examined and recorded at a time."""


class Journal:
    """Two files: a row of `VERDICT` for each sample from the first on, and a JSON line for each rejected one.

    Incomplete data of a killed process is cut off when the journal is opened.

    Args:
        folder: folder of the files; must exist.
        samples: number of samples of the source.
    """

    def __init__(self, folder: Path, samples: int) -> None:
        self._verdicts, self._rejected = folder / "verdicts.bin", folder / "rejected.jsonl"
        self._samples = samples
        for path in (self._verdicts, self._rejected):
            path.touch()
        rows = self._verdicts.stat().st_size // VERDICT.itemsize
        self.examined = samples if rows >= samples else rows // CHUNK * CHUNK
        """Number of examined samples, always the first ones."""
        os.truncate(self._verdicts, self.examined * VERDICT.itemsize)
        os.truncate(self._rejected, self._end_of_rejected())

    def chunks(self) -> Iterator[range]:
        """The indices of samples still to be examined."""
        for start in range(self.examined, self._samples, CHUNK):
            yield range(start, min(start + CHUNK, self._samples))

    def append(self, examined: Examined) -> None:
        """Record the next chunk. Its rows are written last: if they exist, the lines exist too."""
        lines = [json.dumps({"number": index, **asdict(sample)}) + "\n" for index, sample in examined.rejected]
        for path, content in ((self._rejected, "".join(lines).encode()), (self._verdicts, examined.verdicts.tobytes())):
            if content:
                with path.open("ab") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        self.examined += len(examined.verdicts)

    def verdicts(self) -> NDArray[np.void]:
        """The rows of all examined samples, a memory map."""
        return np.asarray(np.memmap(self._verdicts, VERDICT, "r", shape=(self.examined,)))

    def rejected(self) -> Iterator[tuple[int, RejectedSample]]:
        """Index and record of each rejected sample, in order."""
        with self._rejected.open(encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                yield entry.pop("number"), RejectedSample(**entry)

    def _end_of_rejected(self) -> int:
        """Bytes of the lines that belong to examined samples."""
        end = 0
        with self._rejected.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or json.loads(line)["number"] >= self.examined:
                    break
                end += len(line)
        return end


def find_duplicates(verdicts: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The good samples whose file equals that of an earlier good one, ascending, and for each the first such one."""
    good = np.flatnonzero(verdicts["good"])
    digests = np.asarray(verdicts["digest"])[good]
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal files stay in the order of their indices
    ordered = digests[order]
    again = np.zeros(len(good), dtype=bool)
    again[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    firsts = np.maximum.accumulate(np.where(again, 0, np.arange(len(good))))
    indices, first_indices = good[order[again]], good[order[firsts[again]]]
    ascending = np.argsort(indices)
    return indices[ascending], first_indices[ascending]
