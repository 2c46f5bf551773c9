"""Writes one shard at a time, in any process; the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blip2_train.data.prepare.destination import Destination, sha256_of
from blip2_train.data.prepare.examination import short_digest, usable_texts
from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.record import Record
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.sample_files import without_orientation
from blip2_train.data.shards.shard_lists import ROWS_SUFFIX
from blip2_train.data.shards.tar import scan_shard
from blip2_train.data.shards.writer import RECORD_KEYS, ShardFile, shard_stem
from blip2_train.data.sources.source import PairSource, supports_read_ahead
from blip2_train.errors import ShardError

_AHEAD = 64
"""Remote samples that are fetched at once."""


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """A shard's entry in the index."""

    file: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to be written, or to be checked if it was finished before."""

    shard_index: int
    samples: NDArray[np.int64]
    """Indices of its samples."""
    verdicts: NDArray[np.void]
    """Row of `VERDICT` for each sample."""
    finished: PackedShard | None
    """The shard's entry from when it was finished; None if it was not."""


class Packing:
    """Reads the samples of a shard again, one after the other, and writes them.

    Args:
        source: source of the samples.
        options: options, of which the sizes of shards and images are used.
        destination: destination of the shards.
        unfinished: folder for incomplete shards, on the disk of the destination's folder.
    """

    def __init__(self, source: PairSource, options: ShardOptions, destination: Destination, unfinished: Path) -> None:
        self._source, self._options, self._destination, self._unfinished = source, options, destination, unfinished

    def __call__(self, task: ShardTask) -> PackedShard:
        """Write a shard with its statistics and the rows of its index, unless the finished shard is unchanged.

        Raises:
            ShardError: if a file of the source changed since its examination, or the shard cannot be written.
        """
        known, stem = task.finished, shard_stem(task.shard_index)
        if known is not None and self._destination.holds(known.file, known.bytes, known.sha256):
            return known
        unfinished, rows = self._unfinished / f"{stem}.tar", self._unfinished / f"{stem}{ROWS_SUFFIX}"
        statistics = self._unfinished / f"{stem}_stats.json"
        with self._destination.writing(unfinished):
            shard = ShardFile(unfinished, task.shard_index, self._options.samples_per_shard)
            for position, (index, verdict) in enumerate(zip(task.samples.tolist(), task.verdicts, strict=True)):
                if position % _AHEAD == 0 and supports_read_ahead(self._source):
                    self._source.read_ahead(task.samples[position : position + _AHEAD].tolist())
                self._add(shard, index, verdict)
            shard.close()
            packed = PackedShard(
                file=unfinished.name,
                samples=shard.samples,
                bytes=unfinished.stat().st_size,
                sha256=sha256_of(unfinished),
            )
            statistics.write_text(shard.statistics())
            np.save(rows, scan_shard(unfinished)[0])
            for file in (statistics, rows, unfinished):
                self._destination.put(file)
        return packed

    def _add(self, shard: ShardFile, index: int, verdict: np.void) -> None:
        try:
            record = self._source.read(index)
            texts = usable_texts(record)
        except UnusableSample as problem:
            raise self._changed(index, problem.detail or problem.reason) from None
        if short_digest(hashlib.sha256(record.image).digest()) != tuple(verdict["digest"].tolist()):
            raise self._changed(index, "its image is another")
        size = int(verdict["width"]), int(verdict["height"])
        image, extension, new_size = self._fitted(record, size)
        extra = self._source.details(index)
        url, exif, width, height = (
            extra.pop(name, None) for name in ("url", "exif", "original_width", "original_height")
        )
        extra = {name: value for name, value in extra.items() if name not in RECORD_KEYS}
        shard.write(
            image,
            texts[0],
            size=new_size,
            url=url if isinstance(url, str) else "",
            extra=extra | ({"captions": list(texts)} if len(texts) > 1 else {}),
            original_size=(width, height) if isinstance(width, int) and isinstance(height, int) else size,
            extension=extension,
            exif="{}" if exif is None else exif if image is record.image else without_orientation(exif),
        )

    def _changed(self, index: int, what: str) -> ShardError:
        location = self._source.sample_location(index)
        return ShardError(
            f"{location.file}: {location.key} changed while shards were made of it ({what}); leave the source alone, "
            "and start again in an empty folder"
        )

    def _fitted(self, record: Record, size: tuple[int, int]) -> tuple[bytes, str, tuple[int, int]]:
        """Content, extension and size of the image's file in the shard; upright if it is encoded again."""
        shortest = self._options.resize
        if shortest is not None and min(size) > shortest:
            width, height = (round(side * shortest / min(size)) for side in size)
            scaled = record.decoded().resize((width, height), Image.Resampling.LANCZOS)
            return _encoded(scaled, "JPEG", quality=self._options.quality), "jpg", (width, height)
        if (extension := _extension(record.image)) is None:
            return _encoded(record.decoded(), "PNG"), "png", size
        return record.image, extension, size


def _extension(data: bytes) -> str | None:
    """Extension of files with this content in shards; None for GIF, BMP, TIFF and AVIF, which shards do not hold."""
    if data[:4] == b"RIFF":
        return "webp"
    return {b"\xff\xd8": "jpg", b"\x89P": "png"}.get(data[:2])


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
