"""The index of shards, kept on disk, so that every sample can be read by its offset."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from threading import Lock

import msgspec
import numpy as np
from numpy.typing import NDArray

from blip2_train.data.order import stable_seed
from blip2_train.data.printable_names import printable_name
from blip2_train.data.shards.catalog import (
    CatalogEntry,
    ShardCatalog,
    catalog_path,
    read_catalog,
    write_catalog,
    write_index_file,
)
from blip2_train.data.shards.shard_lists import ListedShard
from blip2_train.data.shards.tar import Shard, scan_shard
from blip2_train.data.storage.remote import RemoteFile, Storage
from blip2_train.errors import ShardError
from blip2_train.system.records import Count, read_record
from blip2_train.system.screen import LINE_EVERY
from blip2_train.types import RejectedSample

_LOGGER = logging.getLogger(__name__)
_VERSION = 2
"""Part of every file name; increased when the format of the files changes."""


def open_catalog(
    shards: Sequence[str | RemoteFile],
    folder: Path,
    storage: Storage | None = None,
    listed: Mapping[RemoteFile, ListedShard] | None = None,
    threads: int = 8,
) -> tuple[ShardCatalog, list[RejectedSample]]:
    """The catalog of shards, and the samples rejected in them.

    If no shard has changed, it is read from one file, named after their paths, sizes and times of change. Else it is
    built from the index of each shard (`index_shards`), and written.

    Args:
        shards: tar files, as returned by `find_shards`.
        folder: folder of the index.
        storage: how remote storage is accessed.
        listed: entries of remote shards that need no scan; their rows are fetched when they are first needed.
        threads: number of shards scanned at a time.

    Raises:
        ShardError: if a shard cannot be opened.
    """
    known = listed or {}
    folder.mkdir(parents=True, exist_ok=True)
    path = catalog_path(folder, _VERSION, [_facts(shard, known) for shard in shards])
    if (kept := read_catalog(path)) is not None:
        return kept
    each: list[Shard] = [Path(shard) if isinstance(shard, str) else shard for shard in shards]
    entries, rejected = index_shards(each, folder, storage, known, threads)
    return write_catalog(path, entries, rejected), rejected


def index_shards(
    shards: Sequence[Shard],
    folder: Path,
    storage: Storage | None = None,
    listed: Mapping[RemoteFile, ListedShard] | None = None,
    threads: int = 8,
) -> tuple[list[CatalogEntry], list[RejectedSample]]:
    """The entry of each shard; scanned once (about 13,000 tar members per second and core), then read from `folder`.

    A file of the index is named after the shard's path, size and time of change, so a changed shard is scanned again.
    Arguments and errors are those of `open_catalog`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known, storage, notes = listed or {}, storage or Storage(), _Notes(len(shards))
    names = relative_names(shards)
    with ThreadPoolExecutor(max(1, min(threads, len(shards)))) as pool:
        each = [known.get(shard) if isinstance(shard, RemoteFile) else None for shard in shards]
        results = pool.map(
            lambda shard, name, item: _entry(shard, name, item, folder, storage, notes), shards, names, each
        )
        entries: list[CatalogEntry] = []
        rejected: list[RejectedSample] = []
        for entry, its_rejected in results:
            notes.has(len(entries) + 1)
            entries.append(entry)
            rejected += its_rejected
    return entries, rejected


class _Notes:
    """Logs that shards are indexed, once, and how far it is while it lasts."""

    def __init__(self, total: int) -> None:
        self._total, self._last, self._lock = total, 0.0, Lock()

    def begins(self) -> None:
        """A shard has no index yet."""
        with self._lock:
            if not self._last:
                self._last = time.monotonic()
                _LOGGER.info("indexing what is new of %d shards (once)", self._total)

    def has(self, done: int) -> None:
        """So many shards are indexed."""
        with self._lock:
            if self._last and time.monotonic() - self._last > LINE_EVERY:
                self._last = time.monotonic()
                _LOGGER.info("indexing: %d of %d shards", done, self._total)


_HASHED_FIELDS = ("key", "picture", "picture_size", "text_size", "json_size")
"""Fields of rows that are hashed; listed here, so that a new field changes no hash."""


class _Summary(msgspec.Struct):
    samples: Count
    rejected: list[RejectedSample]
    content: str = ""
    """Hash of the rows; files of earlier versions have none."""


def _entry(
    shard: Shard, name: str, item: ListedShard | None, folder: Path, storage: Storage, notes: _Notes
) -> tuple[CatalogEntry, list[RejectedSample]]:
    try:
        identity, size = _identity(shard)
        stem = f"{stable_seed(_VERSION, *identity):016x}"
        if item is not None:
            entry = CatalogEntry(shard=shard, name=name, samples=item.samples, size=size, rows=stem, origin=item.rows)
            return entry, []
        rows, summary = folder / f"{stem}.npy", folder / f"{stem}.json"
        if not (summary.exists() and rows.exists()):
            notes.begins()
            table, rejected = scan_shard(shard, storage)
            write_index_file(rows, table)
            write_index_file(summary, _summary_of(table, rejected))
        known = read_record(summary, _Summary, "remove it", ShardError)
        if not known.content:
            table = np.load(rows, allow_pickle=False)
            write_index_file(summary, _summary_of(table, known.rejected))
            known = read_record(summary, _Summary, "remove it", ShardError)
    except OSError as error:
        raise ShardError(f"shard {shard} cannot be indexed: {error}") from None
    entry = CatalogEntry(shard=shard, name=name, samples=known.samples, size=size, rows=stem, content=known.content)
    return entry, known.rejected


def _summary_of(rows: NDArray[np.void], rejected: Sequence[RejectedSample]) -> dict[str, object]:
    content = hashlib.blake2b(digest_size=8)
    for name in _HASHED_FIELDS:
        content.update(np.ascontiguousarray(rows[name]).tobytes())
    rejections = [asdict(sample) for sample in rejected]
    return {"samples": len(rows), "rejected": rejections, "content": content.hexdigest()}


def _identity(shard: Shard) -> tuple[tuple[object, ...], int]:
    """What changes when a shard does, and its size in bytes."""
    if isinstance(shard, RemoteFile):
        return (shard.url, shard.size, shard.version), shard.size
    state = shard.stat()
    return (shard.resolve(), state.st_size, state.st_mtime_ns), state.st_size


def _facts(shard: str | RemoteFile, listed: Mapping[RemoteFile, ListedShard]) -> str:
    """A text that changes when the catalog's entry of a shard changes."""
    if isinstance(shard, RemoteFile):
        item = listed.get(shard)
        rows = "" if item is None else f"{item.samples}\0{item.rows.url}\0{item.rows.size}\0{item.rows.version}"
        return f"{shard.url}\0{shard.size}\0{shard.version}\0{rows}"
    try:
        state = os.stat(shard)
    except OSError as error:
        raise ShardError(f"shard {shard} cannot be indexed: {error}") from None
    return f"{shard}\0{state.st_size}\0{state.st_mtime_ns}"


def relative_names(shards: Sequence[Shard]) -> list[str]:
    """Each shard's path below the common folder, without the extension; independent of where that folder lies."""
    paths = [_absolute(shard) for shard in shards]
    common = os.path.commonpath([path.parent for path in paths])
    return [printable_name(path.relative_to(common).with_suffix("").as_posix()) for path in paths]


def _absolute(shard: Shard) -> PurePosixPath:
    """A shard's absolute path; of a remote shard, with the protocol and the bucket as folders."""
    if isinstance(shard, RemoteFile):
        return PurePosixPath("/" + shard.url.replace("://", "/"))
    return PurePosixPath(shard.absolute())
