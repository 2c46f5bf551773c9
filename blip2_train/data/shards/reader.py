"""Reads the members of samples from shards, by offset; remote ones in advance."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from blip2_train.data.rejections import UnreadableShard
from blip2_train.data.shards.catalog import ShardCatalog
from blip2_train.data.shards.open_files import SHARD_FILES, OpenFile
from blip2_train.data.storage.block_cache import BlockCache
from blip2_train.data.storage.prefetch import Prefetcher, Span
from blip2_train.data.storage.remote import RemoteFile, Storage, TruncatedFile
from blip2_train.errors import ShardError

KINDS = ("picture", "text", "json")  # as index files name them: `picture` is the image
_OWNERS = count()
"""Identities of the readers of a process."""
Members = Callable[[str], bytes]
"""Returns the content of a member, by its kind: `picture`, `text` or `json`."""


class _Held(NamedTuple):
    """The bytes of a remote sample's members, as stored in its shard."""

    span: Span
    data: bytes

    def covers(self, other: Span) -> bool:
        """Whether `other` lies within these bytes."""
        return other.shard == self.span.shard and self.span.start <= other.start and other.end <= self.span.end

    def cut(self, row: np.void, kind: str) -> bytes:
        """The content of a member."""
        first = int(row[kind]) - self.span.start
        return self.data[first : first + int(row[f"{kind}_size"])]


_NOTHING = _Held(Span(-1, 0, 0), b"")


class ShardReader:
    """Members of samples, by the index of the shard and the sample's row in the index of the shard.

    Announced remote samples are fetched many in a request (see `Prefetcher`); any other sample is one request for all
    its members, or none if a block with it is in the cache. Of a local shard, members are read one by one when they are
    requested.

    Args:
        catalog: catalog of the shards.
        storage: how remote storage is accessed, and how bad shards are handled.
    """

    def __init__(self, catalog: ShardCatalog, storage: Storage) -> None:
        self._catalog, self._storage = catalog, storage
        self.remote = catalog.remote
        """Whether reading ahead is faster."""
        self._cache = BlockCache(storage) if self.remote and storage.options.cache else None
        self._begin()

    def _begin(self) -> None:
        """Initialise the state that each process has of its own."""
        self._owner = next(_OWNERS)
        weakref.finalize(self, SHARD_FILES.forget, self._owner)
        self._ahead: Prefetcher | None = None
        self._held = _NOTHING

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_catalog", "_storage", "remote", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def members(self, shard: int, row: np.void, kinds: Sequence[str] = KINDS) -> Members:
        """The members of a sample, of these kinds.

        Raises:
            UnreadableShard: now, or when a member is requested, if it can no longer be read.
            ShardError: likewise, with `bad_shards="stop"`.
        """
        path = self._catalog.shard(shard)
        if not isinstance(path, RemoteFile):
            return partial(self._content, self._file(shard, path), path, row)
        needed = span(shard, row, kinds)
        if not self._held.covers(needed):
            self._held = self._fetched(path, needed, span(shard, row))
        return partial(self._held.cut, row)

    def follow(self, passages: Iterable[Sequence[Span]], share: float) -> None:
        """Fetch samples in the order in which they will be read, before they are read; replaces an earlier order.

        Args:
            passages: groups of samples' spans, in order; the samples of a passage lie close together.
            share: share of the memory set in the options, 0 … 1.
        """
        if self._ahead is not None:
            self._ahead.close()
        options = self._storage.options
        memory = 0 if self._cache else int(options.memory_mb * 1e6 * share)
        self._ahead = Prefetcher(lambda one: self._fetch(self._remote(one.shard), one), passages, memory)

    def _fetched(self, file: RemoteFile, needed: Span, whole: Span) -> _Held:
        """The bytes of a sample, fetched in advance or by a request now."""
        try:
            if self._ahead is not None and (data := self._ahead.take(whole)) is not None:
                return _Held(whole, data)
            return _Held(needed, self._fetch(file, needed))
        except TruncatedFile as error:
            self.refuse("truncated shard", f"{file}: {error.strerror}")
        except OSError as error:
            self.refuse("unreadable shard", f"{file}: {error.strerror or error or 'it no longer exists'}")

    def _remote(self, shard: int) -> RemoteFile:
        file = self._catalog.shard(shard)
        assert isinstance(file, RemoteFile)
        return file

    def refuse(self, reason: str, detail: str) -> NoReturn:
        """Raise the error of a bad shard: `UnreadableShard`, after which the sample is replaced, or `ShardError`."""
        if self._storage.options.bad_shards == "stop":
            raise bad_shard(reason, detail)
        raise UnreadableShard(reason, detail)

    def _fetch(self, file: RemoteFile, needed: Span) -> bytes:
        return (self._cache or self._storage).read(file, needed.start, needed.end)

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
    """The error that ends a run at its first bad shard, with `bad_shards="stop"`."""
    return ShardError(
        f"{reason}: {detail}. Restore the shard, or pass data.storage.bad_shards=skip to go on without it"
    )


def span(shard: int, row: np.void, kinds: Sequence[str] = KINDS) -> Span:
    """The span from the first of these members to the end of the last; in usual shards they are adjacent."""
    there = [(int(row[kind]), int(row[kind]) + int(row[f"{kind}_size"])) for kind in kinds if row[kind] >= 0]
    return Span(shard, min(start for start, _ in there), max(end for _, end in there))
