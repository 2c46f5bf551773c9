"""A kept index of each shard, so that any sample is reached by its offset."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.order import stable_seed
from blip2_train.data.shard_notes import ShardNote
from blip2_train.data.shards import ROW_FIELDS, Shard, scan_shard
from blip2_train.data.storage import RemoteFile, Storage
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

_LOGGER = logging.getLogger(__name__)
_VERSION = 2
"""Part of every file name: raised when the meaning of the files changes."""


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Where the samples of one shard lie."""

    shard: Shard
    rows: Path
    """`.npy` file of the rows that `scan_shard` gives; opened as a memory map, so that processes share it."""
    origin: RemoteFile | None = None
    """Where the rows are fetched from when they are first needed; None if they are there."""
    samples: int
    size: int
    """Bytes of the shard."""
    rejected: tuple[RejectedSample, ...]


def index_folder() -> Path:
    """The user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`), or a temporary one where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "blip2_train" / "shards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"blip2_train-shards-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def index_shards(
    shards: Sequence[Shard],
    folder: Path,
    storage: Storage | None = None,
    notes: Mapping[Shard, ShardNote] | None = None,
    threads: int = 8,
) -> list[ShardIndex]:
    """The index of each shard; scanned once (about 13,000 tar members a second and core), then read from `folder`.

    A file of the index is named after the shard's path, size and time of change, so a changed shard is scanned again.

    Args:
        shards: tar files.
        folder: where the index is kept.
        storage: how remote storage is reached.
        notes: of remote shards that need no scan; their rows are fetched when they are first needed.
        threads: shards scanned at a time.

    Raises:
        ShardError: if a shard cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known, storage = notes or {}, storage or Storage()
    with ThreadPoolExecutor(max(1, min(threads, len(shards)))) as pool:
        return list(pool.map(lambda shard: _index_shard(shard, folder, storage, known.get(shard)), shards))


def _index_shard(shard: Shard, folder: Path, storage: Storage, note: ShardNote | None) -> ShardIndex:
    try:
        identity, size = _identity(shard)
        stem = f"{stable_seed(_VERSION, *identity):016x}"
        rows, summary = folder / f"{stem}.npy", folder / f"{stem}.json"
        if note is not None:
            return ShardIndex(shard=shard, rows=rows, origin=note.rows, samples=note.samples, size=size, rejected=())
        if not (summary.exists() and rows.exists()):
            _LOGGER.info("indexing %s", shard)
            table, rejected = scan_shard(shard, storage)
            _write(rows, table)
            _write(summary, {"samples": len(table), "rejected": [asdict(sample) for sample in rejected]})
        known = json.loads(summary.read_text(encoding="utf-8"))
    except OSError as error:
        raise ShardError(f"shard {shard} cannot be indexed: {error}") from None
    return ShardIndex(
        shard=shard,
        rows=rows,
        samples=known["samples"],
        size=size,
        rejected=tuple(RejectedSample(**sample) for sample in known["rejected"]),
    )


def _identity(shard: Shard) -> tuple[tuple[object, ...], int]:
    """What changes when a shard does, and its size in bytes."""
    if isinstance(shard, RemoteFile):
        return (shard.url, shard.size, shard.version), shard.size
    state = shard.stat()
    return (shard.resolve(), state.st_size, state.st_mtime_ns), state.st_size


def open_rows(index: ShardIndex, storage: Storage) -> NDArray[np.void]:
    """The rows of a shard, fetched if they are not there.

    Raises:
        OSError: if they are neither there nor can be fetched.
        ShardError: if what was fetched does not fit the shard.
    """
    if index.origin is not None and not index.rows.exists():
        try:
            table = np.load(io.BytesIO(storage.read(index.origin)), allow_pickle=False)
        except ValueError:
            table = np.zeros(0)
        if len(table) != index.samples or table.dtype.names != ROW_FIELDS:
            raise ShardError(
                f"{index.origin} does not fit {index.shard}, which has {index.samples} samples: remove it, so that the "
                "shard is read instead, or make the shards again"
            )
        _write(index.rows, table)
    rows: NDArray[np.void] = np.load(index.rows, mmap_mode="r")
    return rows


def _write(path: Path, content: np.ndarray | dict[str, object]) -> None:
    """Write a file that is there as a whole or not at all, whoever else writes it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    with os.fdopen(handle, "wb") as file:
        if isinstance(content, dict):
            file.write(json.dumps(content).encode())
        else:
            np.save(file, content)
    os.replace(temporary, path)
