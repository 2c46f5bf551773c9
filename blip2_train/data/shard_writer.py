"""Writes WebDataset shards in the layout of img2dataset, byte for byte the same for the same samples."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from blip2_train.errors import ShardError

SHARD_DIGITS = 5


class ShardWriter:
    """A folder of `00000.tar`, `00001.tar`, … with `00000_stats.json` beside each.

    A sample with key `000000012` becomes `000000012.jpg`, `.txt` (the caption) and `.json` (img2dataset's record). A
    key is the shard's number followed by the sample's number in the shard, in as many digits as img2dataset would
    take: nine for 10,000 samples per shard. A shard bears the suffix `.part` until it is whole. Times and owners are
    left empty.

    Args:
        folder: made when missing; must hold no shards.
        samples_per_shard: samples in every shard but the last.

    Raises:
        ShardError: if the folder already holds shards.
        ValueError: if `samples_per_shard` is below 1.

    Source: img2dataset 1.47, `WebDatasetSampleWriter` and `compute_key` (layout only).
    """

    def __init__(self, folder: Path, *, samples_per_shard: int = 10_000) -> None:
        if samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
        self.folder, self.samples_per_shard = Path(folder), samples_per_shard
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.glob("*.tar")):
            raise ShardError(f"{self.folder} already holds shards; give an empty folder")
        self.samples_written = 0
        self._sample_digits = math.ceil(math.log10(samples_per_shard)) if samples_per_shard > 1 else 1
        self._tar: tarfile.TarFile | None = None
        self._in_shard = 0

    def write(
        self,
        picture: bytes,
        caption: str,
        *,
        size: tuple[int, int],
        url: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Append one sample and return its key.

        Args:
            picture: an encoded JPEG.
            caption: text of the `.txt` file and of the record's `caption`.
            size: width and height in pixels.
            url: where the picture came from.
            extra: further entries of the record (`captions`, `image_id`, …); may not replace img2dataset's own.

        Raises:
            ValueError: if `extra` has a key that img2dataset uses.
        """
        if self._tar is None:
            self._open()
        assert self._tar is not None
        shard = self.samples_written // self.samples_per_shard
        key = f"{shard:0{SHARD_DIGITS}d}{self._in_shard:0{self._sample_digits}d}"
        record: dict[str, Any] = {
            "caption": caption,
            "url": url,
            "key": key,
            "status": "success",
            "error_message": None,
            "width": size[0],
            "height": size[1],
            "original_width": size[0],
            "original_height": size[1],
            "exif": "{}",
            "sha256": hashlib.sha256(picture).hexdigest(),
        }
        if doubled := record.keys() & (extra or {}).keys():
            raise ValueError(f"extra may not replace {', '.join(sorted(doubled))}")
        record.update(extra or {})
        self._add(f"{key}.jpg", picture)
        self._add(f"{key}.json", json.dumps(record, indent=4).encode())
        self._add(f"{key}.txt", caption.encode())
        self._in_shard += 1
        self.samples_written += 1
        if self._in_shard == self.samples_per_shard:
            self._finish()
        return key

    def close(self) -> None:
        """Finish the last shard."""
        if self._tar is not None:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._tar is not None:
            self._tar.close()

    def _open(self) -> None:
        stem = f"{self.samples_written // self.samples_per_shard:0{SHARD_DIGITS}d}"
        self._stem, self._in_shard = stem, 0
        self._tar = tarfile.open(  # noqa: SIM115 (closed in _finish)
            self.folder / f"{stem}.tar.part", "w", format=tarfile.USTAR_FORMAT
        )

    def _add(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = len(data), 0o444, 0
        self._tar.addfile(entry, io.BytesIO(data))

    def _finish(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._tar = None
        stats = {
            "count": self._in_shard,
            "successes": self._in_shard,
            "failed_to_download": 0,
            "failed_to_resize": 0,
            "duration": 0.0,
            "start_time": 0.0,
            "end_time": 0.0,
            "status_dict": {"success": self._in_shard},
        }
        (self.folder / f"{self._stem}_stats.json").write_text(json.dumps(stats, indent=4))
        (self.folder / f"{self._stem}.tar.part").replace(self.folder / f"{self._stem}.tar")
