"""Decides which samples of a source are usable, chunk by chunk, in any process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.annotations.captions import read_captions
from blip2_train.data.annotations.content import SUFFIXES
from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.printable_names import printable_name
from blip2_train.data.record import Record
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.source import PairSource, supports_read_ahead
from blip2_train.data.storage.user_cache import local_copy
from blip2_train.data.stream.stream import dropped_captions, rejection, usable_captions
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample


def read_exclusions(files: Sequence[str], split: str | None = None) -> frozenset[str]:
    """The names of excluded images: ids, paths, or SHA-256 of the files in lower-case hexadecimal.

    Args:
        files: annotation files, whose images are excluded by id, path and file name (except names that are only a
            number, as those of Visual Genome); or text files with one name per line.
        split: for annotation files with splits: the split of the images to exclude, several joined by `+`.

    Raises:
        ShardError: with the file and what to do.
    """
    return frozenset(printable_name(name) for file in files for name in _names(local_copy(file), split))


def _names(file: Path, split: str | None) -> Iterator[str]:
    if file.name.lower().endswith(SUFFIXES):
        for image in read_captions(file, split):
            yield image.path
            if re.search(r"[^\W\d]", PurePosixPath(image.path).stem):
                yield PurePosixPath(image.path).name
            if image.image_id not in (None, "") and not image.counted:
                yield str(image.image_id)
        return
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names of files may be no UTF-8
    except OSError as error:
        raise ShardError(f"list of excluded images {file} cannot be read ({error}); give a UTF-8 text file") from None
    if "\0" in text:
        raise ShardError(f"list of excluded images {file} is no text of lines; save it as UTF-8")
    lines = [line.strip() for line in text.split("\n")]
    if not any(lines):
        raise ShardError(f"list of excluded images {file} is empty; write an id, a path or a SHA-256 in each line")
    yield from (line.lower() if re.fullmatch(r"[0-9A-Fa-f]{64}", line) else line for line in lines if line)


VERDICT = np.dtype([("good", "u1"), ("width", "<u4"), ("height", "<u4"), ("digest", "<u8", (2,))])
"""Row of one sample: whether it is usable; size in pixels, upright; first 128 bits of its file's SHA-256."""


@dataclass(frozen=True)
class Examined:
    """The verdicts on consecutive samples."""

    verdicts: NDArray[np.void]
    """One row of `VERDICT` per sample."""
    rejected: tuple[tuple[int, RejectedSample], ...]
    """Index and record of each unusable sample, and of each sample with unusable captions."""


class Examination:
    """Reads and decodes samples, and applies every rule that concerns one sample alone.

    Args:
        source: source of the samples.
        options: options, of which `min_side` and `max_aspect_ratio` are used.
        excluded: names of images that must not be used, see `read_exclusions`.
    """

    def __init__(self, source: PairSource, options: ShardOptions, excluded: frozenset[str]) -> None:
        self._source, self._options, self._excluded = source, options, excluded

    def __call__(self, indices: range) -> Examined:
        """Examine the samples with these indices; memory is one image, for remote sources the files of a chunk."""
        verdicts = np.zeros(len(indices), VERDICT)
        rejected = []
        if supports_read_ahead(self._source):
            self._source.read_ahead(indices)
        for position, index in enumerate(indices):
            try:
                verdicts[position], captions = self._verdict(index)
                rejected += [(index, one) for one in dropped_captions(self._source, index, captions)]
            except UnusableSample as problem:
                rejected.append((index, rejection(self._source, index, problem)))
        return Examined(verdicts, tuple(rejected))

    def _verdict(self, index: int) -> tuple[tuple[int, int, int, tuple[int, int]], tuple[str, ...]]:
        """A row of `VERDICT`, and the captions as written."""
        record = self._source.read(index)
        usable_texts(record)
        content = hashlib.sha256(record.image)
        self._refuse_excluded(index, content.hexdigest())
        width, height = record.decoded().size
        shortest, longest = sorted((width, height))
        if shortest < self._options.min_side:
            raise UnusableSample("too small", f"{width} x {height} pixels")
        most = self._options.max_aspect_ratio
        if most is not None and longest > most * shortest:
            raise UnusableSample("aspect ratio", f"{width} x {height} pixels")
        return (1, width, height, short_digest(content.digest())), record.captions

    def _refuse_excluded(self, index: int, content: str) -> None:
        if not self._excluded:
            return
        details = self._source.details(index)
        paths = [
            printable_name(path) for path in (self._source.sample_location(index).key, str(details.get("path", "")))
        ]
        for name in (*paths, *(path.rpartition("/")[2] for path in paths), content, str(details.get("image_id", ""))):
            if name in self._excluded:
                raise UnusableSample("excluded", f"{name} is listed as excluded")


def usable_texts(record: Record) -> tuple[str, ...]:
    """The usable captions of a sample, as written.

    Raises:
        UnusableSample: if there is none.
    """
    return tuple(record.captions[position] for position, _ in usable_captions(record, record.captions))


def short_digest(digest: bytes) -> tuple[int, int]:
    """The first 128 bits of a SHA-256 digest, as stored in `VERDICT`."""
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
