"""Rows of the indexes of shards, read in blocks; a process holds a bounded number of blocks and no open file."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.shards.catalog import CatalogEntry, ShardCatalog, write_index_file
from blip2_train.data.shards.open_files import SHARD_FILES, OpenFile
from blip2_train.data.shards.tar import ROW_FIELDS, scan_shard
from blip2_train.data.storage.prefetch import REQUESTS
from blip2_train.data.storage.remote import RemoteFile, Storage
from blip2_train.errors import ShardError

_HEADER = 320
"""Bytes at the start of an index that contain the whole header of the `.npy` file."""
_MAGIC = 10
"""Bytes before the description of the rows; the last two are its length."""
_BLOCK_ROWS = 512
"""Rows per block, about 30 KB."""
_BLOCKS = 256
"""Blocks held in memory; a window of the training order mixes 64 parts of a source, each in one or two blocks."""


class ShardRows:
    """The index row of any sample, as returned by `scan_shard`.

    Args:
        catalog: catalog of the shards.
        storage: how remote storage is accessed.
    """

    def __init__(self, catalog: ShardCatalog, storage: Storage) -> None:
        self._catalog, self._storage = catalog, storage
        self._blocks: OrderedDict[tuple[int, int], NDArray[np.void]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": OrderedDict()}

    def entry(self, shard: int, row: int) -> np.void:
        """Byte offsets and sizes of the sample in row `row` of a shard's index.

        Raises:
            ShardError: if the shard's index is missing and cannot be read or made again.
        """
        block, inside = divmod(row, _BLOCK_ROWS)
        rows = self._blocks.get((shard, block))
        if rows is None:
            rows = self._blocks[shard, block] = self._read(shard, block * _BLOCK_ROWS)
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end((shard, block))
        result: np.void = rows[inside]
        return result

    def make_ready(self, shards: Sequence[int]) -> None:
        """Fetch missing rows of remote shards, several shards at a time; raises what `row` raises."""
        entries = [entry for shard in shards if (entry := self._catalog.entry(shard)).origin is not None]
        paths = [(self._path(entry), entry) for entry in entries]
        if missing := [(path, entry) for path, entry in paths if not path.exists()]:
            with ThreadPoolExecutor(REQUESTS) as pool:
                list(pool.map(lambda one: write_rows(one[0], one[1], self._storage), missing))

    def _path(self, entry: CatalogEntry) -> Path:
        return self._catalog.folder / f"{entry.rows}.npy"

    def _read(self, shard: int, first: int) -> NDArray[np.void]:
        """A block of rows from `first`, copied, so that no file stays open."""
        entry = self._catalog.entry(shard)
        path = self._path(entry)
        for again in (False, True):
            try:
                return _block(SHARD_FILES.open(path), first, entry.samples)
            except (FileNotFoundError, ValueError):  # missing or damaged
                pass
            except OSError as error:
                raise ShardError(f"the index of shard {entry.shard} cannot be read: {error}") from None
            if not again:
                write_rows(path, entry, self._storage)
        raise ShardError(f"{path}, the index of shard {entry.shard}, is not as it was written: remove it, start again")


def _block(file: OpenFile, first: int, samples: int) -> NDArray[np.void]:
    """A block of rows from `first` of an `.npy` file with `samples` rows.

    Raises:
        ValueError: if it is another file, or truncated.
    """
    start = file.read(_HEADER, 0)
    kind, offset = _layout(start[: _MAGIC + int.from_bytes(start[_MAGIC - 2 : _MAGIC], "little")], samples)
    count = min(_BLOCK_ROWS, samples - first)
    return np.frombuffer(file.read(count * kind.itemsize, offset + first * kind.itemsize), kind, count)


@lru_cache(maxsize=64)
def _layout(start: bytes, samples: int) -> tuple[np.dtype[np.void], int]:
    """Type and offset of the rows of an `.npy` file, from the bytes before them."""
    file = io.BytesIO(start)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a version that this project does not write")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    if shape != (samples,) or kind.names != ROW_FIELDS:
        raise ValueError("the file of another shard")
    return kind, file.tell()


def write_rows(path: Path, entry: CatalogEntry, storage: Storage) -> None:
    """Write the file of a shard's rows, which are fetched from beside the shard, or come from scanning it.

    Raises:
        ShardError: if their number differs from the number of samples in the catalog.
    """
    try:
        table = scan_shard(entry.shard, storage)[0] if entry.origin is None else _fetched(entry.origin, storage)
    except OSError as error:
        what = f"the index of shard {entry.shard}" if entry.origin is None else str(entry.origin)
        raise ShardError(f"{what} cannot be read: {error}") from None
    if len(table) == entry.samples and table.dtype.names == ROW_FIELDS:
        write_index_file(path, table)
    elif entry.origin is None:
        raise ShardError(f"shard {entry.shard} has changed, it had {entry.samples} samples: start again")
    else:
        raise ShardError(
            f"{entry.origin} does not fit {entry.shard}, which has {entry.samples} samples: remove it, so that the "
            "shard is read instead, or make the shards again"
        )


def _fetched(file: RemoteFile, storage: Storage) -> NDArray[Any]:
    try:
        rows: NDArray[Any] = np.load(io.BytesIO(storage.read(file)), allow_pickle=False)
    except (ValueError, EOFError):
        return np.zeros(0)
    return rows
