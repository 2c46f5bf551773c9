"""The catalog: one file that lists all shards of a source, with their paths, sample counts and index files."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from blip2_train.data.shards.tar import Shard
from blip2_train.data.storage.remote import RemoteFile
from blip2_train.errors import ShardError
from blip2_train.system.records import read_record
from blip2_train.types import RejectedSample

_VERSION = 2
"""Part of every file name; increased when the format of the files changes."""


class _CatalogRecord(msgspec.Struct):
    checksum: str
    rejected: list[RejectedSample]


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """The catalog's entry of one shard."""

    shard: Shard
    name: str
    """Its path below the common folder of all shards, without extension."""
    samples: int
    size: int
    """Bytes of the shard."""
    rows: str
    """Name of the file of its rows (see `scan_shard`) in the folder of the index, without extension."""
    content: str = ""
    """Hash of the rows (names, offsets and lengths of all members): equal for a copy, different for another shard.
    Empty if the rows were not read."""
    origin: RemoteFile | None = None
    """File from which the rows are fetched when they are first needed; None if they come from reading the shard."""


class ShardCatalog:
    """Entries by index, from a file that all processes map into memory; a reader is sent its path only.

    Args:
        path: `.npy` file with one row per shard.

    Raises:
        ShardError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._table: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
            self.ends: NDArray[np.int64] = np.cumsum(self._table["samples"], dtype=np.int64)
        except (OSError, ValueError, EOFError) as error:
            raise ShardError(
                f"{path}, the list of shards, cannot be read ({error}): start again, it is rebuilt"
            ) from None
        self.size = int(self._table["size"].sum())
        """Bytes of all shards."""
        self.remote = bool(self._table["remote"].any())
        """Whether any shard lies on remote storage."""

    def __len__(self) -> int:
        return len(self._table)

    def __reduce__(self) -> tuple[type[ShardCatalog], tuple[Path]]:
        return ShardCatalog, (self._path,)

    @property
    def folder(self) -> Path:
        """Folder of the index files."""
        return self._path.parent

    def shard(self, index: int) -> Shard:
        """Path or remote file of a shard."""
        row = self._table[index]
        if row["remote"]:
            return _remote(row, "path", "size", "version")
        return Path(os.fsdecode(bytes(row["path"])))

    def name(self, index: int) -> str:
        """A shard's path below the common folder of all shards, without extension."""
        return bytes(self._table[index]["name"]).decode()

    def entry(self, index: int) -> CatalogEntry:
        """The whole entry of a shard."""
        row = self._table[index]
        return CatalogEntry(
            shard=self.shard(index),
            name=self.name(index),
            samples=int(row["samples"]),
            size=int(row["size"]),
            rows=bytes(row["rows"]).decode(),
            content=bytes(row["content"]).decode(),
            origin=_remote(row, "origin", "origin_size", "origin_version") if row["origin"] else None,
        )

    def contents(self) -> Iterable[str]:
        """Name and sample count of each shard, in order."""
        for name, samples in zip(self._table["name"].tolist(), self._table["samples"].tolist(), strict=True):
            yield f"{name.decode()}:{samples}"

    def sizes(self) -> list[str]:
        """Bytes of each shard, in order."""
        return [str(size) for size in self._table["size"].tolist()]

    def row_hashes(self) -> list[str]:
        """Hash of the rows of each shard, in order; empty unless every shard has one."""
        hashes = [value.decode() for value in self._table["content"].tolist()]
        return hashes if all(hashes) else []


def _remote(row: np.void, url: str, size: str, version: str) -> RemoteFile:
    return RemoteFile(bytes(row[url]).decode(), int(row[size]), bytes(row[version]).decode())


def catalog_path(folder: Path, version: int, facts: Sequence[str]) -> Path:
    """Path of the catalog's file for these shards, whether it exists or not.

    Args:
        folder: folder of the index.
        version: version of the files of rows.
        facts: for each shard, a text that changes when its entry changes.
    """
    about = "\n".join([str(_VERSION), str(version), os.getcwd(), *facts]).encode(errors="surrogatepass")
    return folder / f"{hashlib.blake2b(about, digest_size=12).hexdigest()}.shards.npy"


def read_catalog(path: Path) -> tuple[ShardCatalog, list[RejectedSample]] | None:
    """The catalog of a file and the rejected samples; None if the file is missing or damaged."""
    try:
        about = read_record(_about(path), _CatalogRecord, "remove it", ShardError)
        if about.checksum != _checksum(path.read_bytes()):
            return None
        return ShardCatalog(path), about.rejected
    except (OSError, ValueError, KeyError, TypeError, ShardError):
        return None


def write_catalog(path: Path, entries: Sequence[CatalogEntry], rejected: Sequence[RejectedSample]) -> ShardCatalog:
    """Write a catalog atomically."""
    none = RemoteFile("", 0)
    columns: dict[str, list[Any]] = {
        "path": [
            entry.shard.url.encode() if isinstance(entry.shard, RemoteFile) else os.fsencode(entry.shard)
            for entry in entries
        ],
        "remote": [isinstance(entry.shard, RemoteFile) for entry in entries],
        "version": [entry.shard.version.encode() if isinstance(entry.shard, RemoteFile) else b"" for entry in entries],
        "name": [entry.name.encode() for entry in entries],
        "samples": [entry.samples for entry in entries],
        "size": [entry.size for entry in entries],
        "rows": [entry.rows.encode() for entry in entries],
        "content": [entry.content.encode() for entry in entries],
        "origin": [(entry.origin or none).url.encode() for entry in entries],
        "origin_size": [(entry.origin or none).size for entry in entries],
        "origin_version": [(entry.origin or none).version.encode() for entry in entries],
    }
    arrays = {name: np.array(values) for name, values in columns.items()}
    table = np.empty(len(entries), dtype=[(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        table[name] = array
    write_index_file(path, table)
    about = {"checksum": _checksum(path.read_bytes()), "rejected": [asdict(one) for one in rejected]}
    write_index_file(_about(path), about)
    return ShardCatalog(path)


def write_index_file(path: Path, content: NDArray[Any] | dict[str, Any]) -> None:
    """Write a file of the index atomically, also if several processes write it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    with os.fdopen(handle, "wb") as file:
        if isinstance(content, dict):
            file.write(json.dumps(content).encode())
        else:
            np.save(file, content)
    os.replace(temporary, path)


def _about(path: Path) -> Path:
    return path.with_suffix(".json")


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
