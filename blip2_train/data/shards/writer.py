"""Writes WebDataset shards in the layout of img2dataset; the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from blip2_train.errors import ShardError

SHARD_DIGITS = 5
RECORD_KEYS = (
    "caption",
    "url",
    "key",
    "status",
    "error_message",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
    "sha256",
)
"""Keys that img2dataset's record of a sample always has."""


class ShardFile:
    """One shard that is being written; it is complete after `close`.

    Args:
        path: the tar file, replaced if it is there.
        shard_index: index of the shard, with which its keys begin.
        samples_per_shard: samples in every shard but the last; determines the number of digits of a key.
    """

    def __init__(self, path: Path, shard_index: int, samples_per_shard: int) -> None:
        from webdataset.writer import TarWriter  # late: only writing needs webdataset

        self.samples = 0
        """Samples written."""
        self._shard_index, self._samples_per_shard = shard_index, samples_per_shard
        self._target = _Target(path)  # no name is given to webdataset, which runs "pipe:…" as a command
        self._tar = TarWriter(self._target, user="", group="", mode=0o444, mtime=0, encoder=False)

    def write(
        self,
        image: bytes,
        caption: str,
        *,
        size: tuple[int, int],
        url: str = "",
        extra: Mapping[str, Any] | None = None,
        original_size: tuple[int, int] | None = None,
        extension: str = "jpg",
        exif: Any = "{}",
    ) -> str:
        """Append one sample and return its key.

        Args:
            image: an encoded image.
            caption: text of the `.txt` file and of the record's `caption`.
            size: width and height in pixels.
            url: origin of the image.
            extra: further entries of the record (`captions`, `image_id`, …); may not replace img2dataset's own.
            original_size: width and height in pixels before the image was scaled; `size` if None.
            extension: extension of the image's file: `jpg`, `png` or `webp`.
            exif: the EXIF data as stored by img2dataset, a JSON text.

        Raises:
            ValueError: if `extra` has a key that img2dataset uses.
        """
        key = sample_key(self._shard_index, self.samples, self._samples_per_shard)
        original = original_size or size
        values = (caption, url, key, "success", None, *size, *original, exif, hashlib.sha256(image).hexdigest())
        record: dict[str, Any] = dict(zip(RECORD_KEYS, values, strict=True))
        if doubled := record.keys() & (extra or {}).keys():
            raise ValueError(f"extra may not replace {', '.join(sorted(doubled))}")
        record.update(extra or {})
        members = {extension: image, "json": json.dumps(record, indent=4).encode(), "txt": caption.encode()}
        for name, content in members.items():  # one by one: the writer would sort them, the image's file comes first
            self._tar.write({"__key__": key, name: content})
        self.samples += 1
        return key

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()
        self._target.close()

    def statistics(self) -> str:
        """Content of the `_stats.json` beside the shard."""
        stats = {
            "count": self.samples,
            "successes": self.samples,
            "failed_to_download": 0,
            "failed_to_resize": 0,
            "duration": 0.0,
            "start_time": 0.0,
            "end_time": 0.0,
            "status_dict": {"success": self.samples},
        }
        return json.dumps(stats, indent=4)


class _Target:
    """The file that a shard is written to.

    After a failed write (a full disk) it ignores further writes: Python ends an abandoned tar stream by writing once
    more, and would print a traceback beside the error.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        if self._file.closed:
            return len(data)
        try:
            return self._file.write(data)
        except OSError:
            with suppress(OSError):
                self.close()
            raise

    def close(self) -> None:
        self._file.close()


def shard_stem(shard_index: int) -> str:
    """Name of a shard without extension."""
    return f"{shard_index:0{SHARD_DIGITS}d}"


def sample_key(shard_index: int, sample_index: int, samples_per_shard: int) -> str:
    """Key of a sample: index of its shard, then its index in the shard.

    Example:
        >>> sample_key(1, 12, samples_per_shard=10_000)
        '000010012'
    """
    digits = math.ceil(math.log10(samples_per_shard)) if samples_per_shard > 1 else 1
    return f"{shard_stem(shard_index)}{sample_index:0{digits}d}"


class ShardWriter:
    """A folder of `00000.tar`, `00001.tar`, … with `00000_stats.json` beside each.

    A sample with key `000000012` becomes `000000012.jpg`, `.txt` (the caption) and `.json` (img2dataset's record). A
    key is the index of the shard followed by the index of the sample in the shard, with as many digits as img2dataset
    uses: nine for 10,000 samples per shard. A shard has the suffix `.part` until it is complete. Times and owners are
    empty.

    Args:
        folder: made when missing; must hold no shards, unless `first_shard` is given.
        samples_per_shard: samples in every shard but the last.
        first_shard: index of the first shard; if given, others may write other shards of the folder.

    Raises:
        ShardError: if the folder already holds shards.
        ValueError: if `samples_per_shard` is below 1.

    Source: img2dataset 1.47, `WebDatasetSampleWriter` and `compute_key` (layout only).
    """

    def __init__(self, folder: Path, *, samples_per_shard: int = 10_000, first_shard: int | None = None) -> None:
        if samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
        self.folder, self.samples_per_shard = Path(folder), samples_per_shard
        self.folder.mkdir(parents=True, exist_ok=True)
        if first_shard is None and any(self.folder.glob("*.tar")):
            raise ShardError(f"{self.folder} already holds shards; give an empty folder")
        self.samples_written = (first_shard or 0) * samples_per_shard
        """Samples of the folder up to the last one written."""
        self._shard: ShardFile | None = None

    def write(
        self,
        image: bytes,
        caption: str,
        *,
        size: tuple[int, int],
        url: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Append one sample, an encoded JPEG, and return its key; arguments as `ShardFile.write`.

        Raises:
            ValueError: if `extra` has a key that img2dataset uses.
        """
        if self._shard is None:
            shard_index = self.samples_written // self.samples_per_shard
            path = self.folder / f"{shard_stem(shard_index)}.tar.part"
            self._shard = ShardFile(path, shard_index, self.samples_per_shard)
        key = self._shard.write(image, caption, size=size, url=url, extra=extra)
        self.samples_written += 1
        if self._shard.samples == self.samples_per_shard:
            self._finish(self._shard)
        return key

    def close(self) -> None:
        """Finish the last shard."""
        if self._shard is not None:
            self._finish(self._shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._shard.close()

    def _finish(self, shard: ShardFile) -> None:
        shard.close()
        self._shard = None
        stem = shard_stem((self.samples_written - 1) // self.samples_per_shard)
        (self.folder / f"{stem}_stats.json").write_text(shard.statistics())
        (self.folder / f"{stem}.tar.part").replace(self.folder / f"{stem}.tar")
