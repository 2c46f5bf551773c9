"""The identity of images by their content, and the table that finds what is stored of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blip2_train.errors import ShardError

CROPS, EVALUATION = 1, 2
"""Flags of what is stored of an image: its training crops, its crop of evaluation. 0 = it cannot be read."""
ImageKey = tuple[int, int]
"""First 128 bits of a SHA-256."""
_UPRIGHT = (None, 1)


def image_key(content: bytes, orientation: int | None) -> ImageKey:
    """The key of an image: equal for files of equal bytes that are turned alike.

    Args:
        content: Content of the image's file.
        orientation: EXIF orientation stored beside the file, see `decode_image`.
    """
    digest = hashlib.sha256(content)
    if orientation not in _UPRIGHT:
        digest.update(f"orientation {orientation}".encode())
    raw = digest.digest()
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:16], "little")


class Stored(NamedTuple):
    """What is stored of an image."""

    shard: int
    """Index of the shard."""
    member: int
    """Index of its first file in the shard."""
    flags: int
    """`CROPS` and `EVALUATION`, added."""


class ImageTable:
    """Finds images by their keys, in a file that all processes map into memory: 32 bytes per image.

    Args:
        path: The file.

    Raises:
        ShardError: if it cannot be read, or holds no such table.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._rows: NDArray[np.uint64] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ShardError(f"{path} cannot be read ({error}); write the features anew") from None
        if self._rows.ndim != 2 or len(self._rows) != 4 or self._rows.dtype != np.uint64:
            held = f"{self._rows.dtype} {self._rows.shape}"
            raise ShardError(
                f"{path} is no table of images: it holds {held}, not uint64 (4, N); write the features anew"
            )

    def __len__(self) -> int:
        return int(self._rows.shape[1])

    def find(self, key: ImageKey) -> Stored | None:
        """What is stored of an image; None if nothing is known of it."""
        high, low, positions, flags = self._rows
        at = int(np.searchsorted(high, np.uint64(key[0])))
        while at < len(high) and int(high[at]) == key[0]:
            if int(low[at]) == key[1]:
                return Stored(int(positions[at]) >> 32, int(positions[at]) & 0xFFFFFFFF, int(flags[at]))
            at += 1
        return None


def table_rows(keys: NDArray[np.uint64], stored: Sequence[Stored]) -> NDArray[np.uint64]:
    """The content of a table's file.

    Args:
        keys: `(N, 2)`.
        stored: Of each of the N images.
    """
    positions = np.fromiter((one.shard << 32 | one.member for one in stored), np.uint64, len(stored))
    flags = np.fromiter((one.flags for one in stored), np.uint64, len(stored))
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    return np.stack([keys[order, 0], keys[order, 1], positions[order], flags[order]])
