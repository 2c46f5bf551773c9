"""Reads `index.json`, in which `make_shards` lists a folder's shards, with sample counts and files of rows."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from blip2_train.data.storage.remote import RemoteFile, Storage
from blip2_train.errors import ShardError
from blip2_train.system.atomic_write import without_checksum
from blip2_train.system.records import Count, check_record, parse_record
from blip2_train.types import RejectedSample

INDEX, ROWS_SUFFIX = "index.json", ".index.npy"
"""Name of the list of a folder's shards; suffix of the file of a shard's rows, in place of `.tar`."""


_FIX = "remove it, so that the shards are read instead, or make the shards again"


@dataclass(frozen=True)
class ListedShard:
    """A remote shard in the list, which need not be scanned."""

    samples: int
    rows: RemoteFile
    """`.npy` file of the rows, as returned by `scan_shard`."""


def read_shard_lists(
    shards: Sequence[str | RemoteFile], storage: Storage
) -> tuple[dict[RemoteFile, ListedShard], list[RejectedSample]]:
    """Read the `index.json` beside shards.

    Returns:
        An entry for each remote shard whose size is the listed one, and a record of each shard (remote or local) that
        is listed but missing.

    Raises:
        ShardError: if remote storage does not answer, or an index cannot be read.
        DamagedFile: if the checksum of an index is wrong.
    """
    notes: dict[RemoteFile, ListedShard] = {}
    missing: list[RejectedSample] = []
    try:
        here = {shard for shard in shards if isinstance(shard, str)}
        for folder in map(Path, dict.fromkeys(map(os.path.dirname, sorted(here)))):
            listed = _listed((folder / INDEX).read_bytes(), str(folder / INDEX)) if (folder / INDEX).is_file() else {}
            unlisted = [name for name in listed if os.path.join(folder, name) not in here]
            missing += [_missing(str(folder), name) for name in unlisted if not (folder / name).is_file()]
        for address in dict.fromkeys(shard.parent for shard in shards if isinstance(shard, RemoteFile)):
            there = {file.name: file for file in storage.find(address)}
            listed = _listed(storage.read(there[INDEX]), f"{address}/{INDEX}") if INDEX in there else {}
            missing += [_missing(address, name) for name in listed if name not in there]
            for name, (samples, size) in listed.items():
                rows = there.get(name.removesuffix(".tar") + ROWS_SUFFIX)
                if name in there and there[name].size == size and rows is not None:
                    notes[there[name]] = ListedShard(samples, rows)
    except OSError as error:
        raise ShardError(f"{error.filename} cannot be read: {error.strerror or error}") from None
    return notes, missing


def _listed(content: bytes, path: str) -> dict[str, tuple[int, int]]:
    """Samples and bytes of each listed shard; empty if the index is another program's.

    Raises:
        ShardError: if it cannot be read.
        DamagedFile: if its checksum is wrong.
    """
    index = parse_record(content, Any, path, _FIX, ShardError)
    if not isinstance(index, dict) or not index.keys() >= {"settings", "shards"}:
        return {}
    without_checksum(index, path, _FIX)
    return {entry.file: (entry.samples, entry.bytes) for entry in _shards(index, path)}


class _Entry(msgspec.Struct):
    file: str
    samples: Count
    bytes: Count


class _Index(msgspec.Struct):
    shards: list[_Entry]


def _shards(index: dict[str, Any], path: str) -> list[_Entry]:
    entries = check_record(index, _Index, path, _FIX, ShardError).shards
    if outside := next((entry.file for entry in entries if posixpath.basename(entry.file) != entry.file), None):
        raise ShardError(f"{path} names {outside!r}, which is no file beside it; {_FIX}")
    return entries


def _missing(folder: str, name: str) -> RejectedSample:
    return RejectedSample(source=f"{folder}/{name}", key="", reason="missing shard", detail=f"{INDEX} lists it")
