"""Reads the members of samples out of shards, by offset; what lies on remote storage, ahead."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from blip2_train.data.piece_cache import PieceCache
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards import Shard
from blip2_train.data.storage import RemoteFile, Storage, TruncatedFile
from blip2_train.errors import ShardError

_OPEN_SHARDS = 128
"""Shards that a process keeps open."""
_REQUESTS = 16
"""Samples that are read ahead at a time."""
_KINDS = ("picture", "text", "json")
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
        shards: by number.
        storage: how remote storage is reached, and what becomes of bad shards.
    """

    def __init__(self, shards: Sequence[Shard], storage: Storage) -> None:
        self._shards, self._storage = shards, storage
        self.remote = any(isinstance(shard, RemoteFile) for shard in shards)
        """Whether reading ahead is of use."""
        self._cache = PieceCache(storage) if self.remote and storage.options.cache else None
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()
        self._ahead: dict[tuple[int, int], Future[bytes]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._held = _Held(-1, 0, b"")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_ahead": {}, "_pool": None, "_held": _Held(-1, 0, b"")}

    def members(self, shard: int, row: np.void, kinds: Sequence[str] = _KINDS) -> Members:
        """The members of a sample, of these kinds.

        Raises:
            UnusableSample: now or when a member is asked for, if the shard no longer gives it.
            ShardError: likewise, if bad shards are to stop the run.
        """
        place = self._shards[shard]
        if not isinstance(place, RemoteFile):
            return partial(self._content, self._file(shard), row)
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
            if isinstance(place := self._shards[shard], RemoteFile)
            for start, end in (_span(row, _KINDS),)
        }

    def refuse(self, reason: str, detail: str) -> NoReturn:
        """Say that a shard is bad: to the stream, which replaces the sample, or to the one who started the run."""
        if self._storage.options.bad_shards == "stop":
            raise bad_shard(reason, detail)
        raise UnusableSample(reason, detail)

    def _fetch(self, file: RemoteFile, start: int, end: int) -> bytes:
        return (self._cache or self._storage).read(file, start, end)

    def _file(self, shard: int) -> BinaryIO:
        """The open shard; the one that was not used for longest is closed when there are too many."""
        if shard not in self._open:
            place = self._shards[shard]
            assert not isinstance(place, RemoteFile)
            try:
                self._open[shard] = place.open("rb", 0)
            except OSError as error:
                self.refuse("unreadable shard", str(error))
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(shard)
        return self._open[shard]

    def _content(self, file: BinaryIO, row: np.void, kind: str) -> bytes:
        """Bytes of one member, read by offset (no shared file position: forked processes do not disturb each other)."""
        size = int(row[f"{kind}_size"])
        try:
            data = os.pread(file.fileno(), size, int(row[kind]))
        except OSError as error:
            self.refuse("unreadable shard", str(error))
        if len(data) < size:
            self.refuse("truncated shard", f"{file.name} is shorter than when it was indexed")
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
