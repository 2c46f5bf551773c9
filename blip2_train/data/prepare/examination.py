"""Finds out which samples can be used, chunk by chunk, in whatever process a chunk is given to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.prepare.pairs import PairSource
from blip2_train.data.printable_names import printable_name
from blip2_train.data.sources.rejections import UnusableSample
from blip2_train.data.sources.source import Record, wants_to_read_ahead
from blip2_train.data.stream.stream import left_out, rejection, usable_captions
from blip2_train.types import RejectedSample

VERDICT = np.dtype([("good", "u1"), ("width", "<u4"), ("height", "<u4"), ("digest", "<u8", (2,))])
"""Of one sample: whether it can be used; size in pixels, upright; first 128 bits of its file's SHA-256."""


@dataclass(frozen=True)
class Examined:
    """What was found out about consecutive samples."""

    verdicts: NDArray[np.void]
    """One row of `VERDICT` for each."""
    rejected: tuple[tuple[int, RejectedSample], ...]
    """Number and reason of each that cannot be used, and of each some of whose captions cannot."""


class Examination:
    """Reads and decodes samples, and applies every rule that concerns one sample alone.

    Args:
        source: where the samples lie.
        options: of which `min_side` and `max_aspect_ratio` count.
        excluded: names of images that must not be used, see `read_exclusions`.
    """

    def __init__(self, source: PairSource, options: ShardOptions, excluded: frozenset[str]) -> None:
        self._source, self._options, self._excluded = source, options, excluded

    def __call__(self, numbers: range) -> Examined:
        """Examine the samples with these numbers; one image is held at a time, of remote sources a chunk of files."""
        verdicts = np.zeros(len(numbers), VERDICT)
        rejected = []
        if wants_to_read_ahead(self._source):
            self._source.read_ahead(numbers)
        for place, number in enumerate(numbers):
            try:
                verdicts[place], captions = self._verdict(number)
                rejected += [(number, one) for one in left_out(self._source, number, captions)]
            except UnusableSample as problem:
                rejected.append((number, rejection(self._source, number, problem)))
        return Examined(verdicts, tuple(rejected))

    def _verdict(self, number: int) -> tuple[tuple[int, int, int, tuple[int, int]], tuple[str, ...]]:
        """A row of `VERDICT`, and the captions as written."""
        record = self._source.read(number)
        usable_texts(record)
        content = hashlib.sha256(record.image)
        self._refuse_excluded(number, content.hexdigest())
        width, height = record.decoded().size
        shortest, longest = sorted((width, height))
        if shortest < self._options.min_side:
            raise UnusableSample("too small", f"{width} x {height} pixels")
        most = self._options.max_aspect_ratio
        if most is not None and longest > most * shortest:
            raise UnusableSample("aspect ratio", f"{width} x {height} pixels")
        return (1, width, height, short_digest(content.digest())), record.captions

    def _refuse_excluded(self, number: int, content: str) -> None:
        if not self._excluded:
            return
        details = self._source.details(number)
        paths = [printable_name(path) for path in (self._source.locate(number).key, str(details.get("path", "")))]
        for name in (*paths, *(path.rpartition("/")[2] for path in paths), content, str(details.get("image_id", ""))):
            if name in self._excluded:
                raise UnusableSample("excluded", f"{name} is listed as excluded")


def usable_texts(record: Record) -> tuple[str, ...]:
    """The captions of a sample that can be used, as written.

    Raises:
        UnusableSample: if there is none.
    """
    return tuple(record.captions[place] for place, _ in usable_captions(record, record.captions))


def short_digest(digest: bytes) -> tuple[int, int]:
    """The first 128 bits of a SHA-256 digest, as `VERDICT` holds them."""
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
