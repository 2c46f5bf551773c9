"""Reads the members of samples out of shards, by offset; what lies on remote storage, ahead."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from blip2_train.data.open_files import SHARD_FILES, OpenFile
from blip2_train.data.piece_cache import PieceCache
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shard_catalog import ShardCatalog
from blip2_train.data.storage import RemoteFile, Storage, TruncatedFile
from blip2_train.errors import ShardError

_REQUESTS = 16
"""Samples that are read ahead at a time."""
_KINDS = ("picture", "text", "json")
_OWNERS = count()
"""Numbers of the readers of a process."""
Members = Callable[[str], bytes]
"""Gives the content of a member by its kind: `picture`, `text` or `json`."""


class _Held(NamedTuple):
    """The members of a remote sample, as they lie in its shard."""

    shard: int
    start: int
    data: bytes

    def covers(self, shard: int, start: int, end: int) -> bool:
        """Whether these bytes of a shard are among them."""
        return shard == self.shard and self.start <= start and end <= self.start + len(self.data)

    def cut(self, row: np.void, kind: str) -> bytes:
        """The content of a member."""
        first = int(row[kind]) - self.start
        return self.data[first : first + int(row[f"{kind}_size"])]


class ShardReader:
    """Members of samples, by number of the shard and the sample's row of its index.

    A remote sample is one request for all its members, or none if a piece that holds it is in the cache. Of a shard on
    this machine, members are read one by one, as they are asked for.

    Args:
        catalog: of the shards.
        storage: how remote storage is reached, and what becomes of bad shards.
    """

    def __init__(self, catalog: ShardCatalog, storage: Storage) -> None:
        self._catalog, self._storage = catalog, storage
        self.remote = catalog.remote
        """Whether reading ahead is of use."""
        self._cache = PieceCache(storage) if self.remote and storage.options.cache else None
        self._begin()

    def _begin(self) -> None:
        """What each process has of its own."""
        self._owner = next(_OWNERS)
        weakref.finalize(self, SHARD_FILES.forget, self._owner)
        self._ahead: dict[tuple[int, int], Future[bytes]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._held = _Held(-1, 0, b"")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_catalog", "_storage", "remote", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def members(self, shard: int, row: np.void, kinds: Sequence[str] = _KINDS) -> Members:
        """The members of a sample, of these kinds.

        Raises:
            UnusableSample: now or when a member is asked for, if the shard no longer gives it.
            ShardError: likewise, if bad shards are to stop the run.
        """
        place = self._catalog.shard(shard)
        if not isinstance(place, RemoteFile):
            return partial(self._content, self._file(shard, place), place, row)
        start, end = _span(row, kinds)
        if self._held.covers(shard, start, end):
            return partial(self._held.cut, row)
        ahead = self._ahead.pop((shard, start), None)
        try:
            data = self._fetch(place, start, end) if ahead is None else ahead.result()
        except TruncatedFile as error:
            self.refuse("truncated shard", f"{place}: {error.strerror}")
        except OSError as error:
            self.refuse("unreadable shard", f"{place}: {error.strerror or error or 'it is gone'}")
        self._held = _Held(shard, start, data)
        return partial(self._held.cut, row)

    def read_ahead(self, wanted: Iterable[tuple[int, np.void]]) -> None:
        """Ask for the members of several samples at once; what was asked for before and not read is forgotten."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_REQUESTS)
        self._ahead = {
            (shard, start): self._pool.submit(self._fetch, place, start, end)
            for shard, row in wanted
            if isinstance(place := self._catalog.shard(shard), RemoteFile)
            for start, end in (_span(row, _KINDS),)
        }

    def refuse(self, reason: str, detail: str) -> NoReturn:
        """Say that a shard is bad: to the stream, which replaces the sample, or to the one who started the run."""
        if self._storage.options.bad_shards == "stop":
            raise bad_shard(reason, detail)
        raise UnusableSample(reason, detail)

    def _fetch(self, file: RemoteFile, start: int, end: int) -> bytes:
        return (self._cache or self._storage).read(file, start, end)

    def _file(self, shard: int, path: Path) -> OpenFile:
        try:
            return SHARD_FILES.get(self._owner, shard, path)
        except OSError as error:
            self.refuse("unreadable shard", str(error))

    def _content(self, file: OpenFile, path: Path, row: np.void, kind: str) -> bytes:
        """Bytes of one member."""
        size = int(row[f"{kind}_size"])
        try:
            data = file.read(size, int(row[kind]))
        except OSError as error:
            self.refuse("unreadable shard", f"{path}: {error}")
        if len(data) < size:
            self.refuse("truncated shard", f"{path} is shorter than when it was indexed")
        return data


def bad_shard(reason: str, detail: str) -> ShardError:
    """The error that ends a run at its first bad shard, if that is asked for."""
    return ShardError(
        f"{reason}: {detail}. Restore the shard, or pass data.storage.bad_shards=skip to go on without it"
    )


def _span(row: np.void, kinds: Sequence[str]) -> tuple[int, int]:
    """The bytes from the first of these members to the end of the last; they lie side by side in every usual shard."""
    there = [(int(row[kind]), int(row[kind]) + int(row[f"{kind}_size"])) for kind in kinds if row[kind] >= 0]
    return min(start for start, _ in there), max(end for _, end in there)
