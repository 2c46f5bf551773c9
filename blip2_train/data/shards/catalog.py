"""All shards of a source in one file: where they are, how many samples each has, and where their indexes lie."""

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
"""Part of every file name: raised when the meaning of the files changes."""


class _About(msgspec.Struct):
    checksum: str
    rejected: list[RejectedSample]


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """What is known of one shard."""

    shard: Shard
    name: str
    """Its path below the folder that all shards share, without extension."""
    samples: int
    size: int
    """Bytes of the shard."""
    rows: str
    """Name of the file of its rows (see `scan_shard`) in the folder of the index, without extension."""
    content: str = ""
    """Hash of the rows (names, offsets and lengths of all members): the same for a copy, another one for another shard.
    Empty where they were not read."""
    origin: RemoteFile | None = None
    """Where the rows are fetched from when they are first needed; None if they come from reading the shard."""


class ShardCatalog:
    """Entries by number, from a file that all processes map: what a reader is sent is its path.

    Args:
        path: `.npy` file with a row per shard.

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
        """Whether a shard lies on remote storage."""

    def __len__(self) -> int:
        return len(self._table)

    def __reduce__(self) -> tuple[type[ShardCatalog], tuple[Path]]:
        return ShardCatalog, (self._path,)

    @property
    def folder(self) -> Path:
        """Where the files of the index lie."""
        return self._path.parent

    def shard(self, index: int) -> Shard:
        """Where a shard is."""
        row = self._table[index]
        if row["remote"]:
            return _remote(row, "path", "size", "version")
        return Path(os.fsdecode(bytes(row["path"])))

    def name(self, index: int) -> str:
        """A shard's path below the folder that all shards share, without extension."""
        return bytes(self._table[index]["name"]).decode()

    def entry(self, index: int) -> CatalogEntry:
        """Everything that is known of a shard."""
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
        """Name and number of samples of each shard, in order."""
        for name, samples in zip(self._table["name"].tolist(), self._table["samples"].tolist(), strict=True):
            yield f"{name.decode()}:{samples}"

    def sizes(self) -> list[str]:
        """Bytes of each shard, in order."""
        return [str(size) for size in self._table["size"].tolist()]

    def row_hashes(self) -> list[str]:
        """Hash of the rows of each shard, in order; empty if they are not known of every shard."""
        hashes = [value.decode() for value in self._table["content"].tolist()]
        return hashes if all(hashes) else []


def _remote(row: np.void, url: str, size: str, version: str) -> RemoteFile:
    return RemoteFile(bytes(row[url]).decode(), int(row[size]), bytes(row[version]).decode())


def catalog_path(folder: Path, version: int, facts: Sequence[str]) -> Path:
    """The file of the catalog of shards of which this is known, whether it is there or not.

    Args:
        folder: of the index.
        version: of the files of rows.
        facts: of each shard, what changes when its entry does.
    """
    about = "\n".join([str(_VERSION), str(version), os.getcwd(), *facts]).encode(errors="surrogatepass")
    return folder / f"{hashlib.blake2b(about, digest_size=12).hexdigest()}.shards.npy"


def kept_catalog(path: Path) -> tuple[ShardCatalog, list[RejectedSample]] | None:
    """The catalog of a file and what was rejected; None if it is not there, or no longer as it was written."""
    try:
        about = read_record(_about(path), _About, "remove it", ShardError)
        if about.checksum != _checksum(path.read_bytes()):
            return None
        return ShardCatalog(path), about.rejected
    except (OSError, ValueError, KeyError, TypeError, ShardError):
        return None


def write_catalog(path: Path, entries: Sequence[CatalogEntry], rejected: Sequence[RejectedSample]) -> ShardCatalog:
    """Write a catalog, whole or not at all."""
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
    write_kept(path, table)
    about = {"checksum": _checksum(path.read_bytes()), "rejected": [asdict(one) for one in rejected]}
    write_kept(_about(path), about)
    return ShardCatalog(path)


def write_kept(path: Path, content: NDArray[Any] | dict[str, Any]) -> None:
    """Write a file of the index, that is there as a whole or not at all, whoever else writes it."""
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
