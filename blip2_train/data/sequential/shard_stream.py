"""Streams the samples of one shard from its first byte to its last, without an index."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from blip2_train.data.printable_names import printable_name
from blip2_train.data.sequential.pipes import PipeShard, PipeStream
from blip2_train.data.shards.tar import DUPLICATE, UNSAFE, IncompleteSample, Shard, member_list, member_name, samples_of
from blip2_train.data.storage.remote import RemoteFile, Storage, TruncatedFile
from blip2_train.types import RejectedSample

AnyShard = Shard | PipeShard
"""A shard that can be read from its start to its end."""
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_CHUNK = 1 << 20
"""Bytes per read."""
MUST_BE_ADJACENT = "; in sequential reading, the members of a sample must be adjacent"


class StreamedSample(NamedTuple):
    """The files of a sample."""

    key: str
    image: bytes
    text: bytes | None
    extra: bytes | None


class _Damage(Exception):
    """Raised where damage ends a shard early."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def stream_samples(shard: AnyShard, storage: Storage) -> Iterator[StreamedSample | RejectedSample]:
    """The usable samples of a shard in order, and a record of each unusable one, by the rules of `scan_shard`.

    A sample's members must be adjacent, as every writer of shards stores them; a sample with separated members is not
    used. Damage ends the shard; samples before it are used. Memory is one sample and one block.

    Args:
        shard: local or remote tar file, or a command that writes one.
        storage: how remote storage is accessed.
    """
    from webdataset.tariterators import tar_file_iterator  # late: only sequential reading needs webdataset

    source, usable = printable_name(str(shard)), 0
    groups = _Groups(source)
    damage: _Damage | None = None
    try:
        archives = _Archives(_opened(shard, storage))
        try:
            while archives.more():
                groups.begin_archive()
                for member in tar_file_iterator(archives, skip_meta=None):
                    for sample in groups.take(member["fname"], member["data"]):
                        usable += isinstance(sample, StreamedSample)
                        yield sample
                archives.check_end()
                for sample in groups.end():
                    usable += isinstance(sample, StreamedSample)
                    yield sample
            archives.check_command()
        finally:
            archives.close()
    except _Damage as problem:
        damage = problem
    except (tarfile.TarError, EOFError, ValueError) as error:
        damage = archives.problem or _Damage("truncated shard", f"it ends within a member ({error})")
    except TruncatedFile as error:
        damage = _Damage("truncated shard", str(error.strerror))
    except OSError as error:
        damage = _Damage("unreadable shard", str(error.strerror or error or "it no longer exists"))
    for sample in groups.end(damaged=damage is not None):
        usable += isinstance(sample, StreamedSample)
        yield sample
    if damage is not None:
        detail = f"{damage.detail}; {usable} samples usable"
        yield RejectedSample(source=source, key="", reason=damage.reason, detail=detail)


def _opened(shard: AnyShard, storage: Storage) -> Any:
    if isinstance(shard, PipeShard):
        return shard.open()
    return storage.open(shard) if isinstance(shard, RemoteFile) else shard.open("rb")


class _Archives:
    """The bytes of a shard for webdataset's iterator, archive by archive.

    Tar files joined by `cat` are several archives in one file; the iterator ends at the first end mark, and may read
    beyond it. So no read continues beyond a block of zeros: when the iterator ends, the next archive begins at the
    current offset. An invalid header ends the iterator silently, too; the last block that was read distinguishes it
    from an end mark.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._held = memoryview(b"")
        self._offset, self._archive, self._last = 0, 0, b""
        self.problem: _Damage | None = None
        """The error of a read; the iterator replaces errors that it passes on."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, up to the end of the first block of zeros."""
        if not self._held:
            self._held = self._next()
        data = bytes(self._held[: max(_BLOCK, size // _BLOCK * _BLOCK)])
        data = data[: _end_of_zeros(data)]
        self._held = self._held[len(data) :]
        self._offset += len(data)
        self._last = data[(len(data) - 1) // _BLOCK * _BLOCK :] if data else self._last
        return data

    def more(self) -> bool:
        """Whether another archive begins here, behind zeros.

        Raises:
            _Damage: if other content follows.
        """
        self._archive += 1
        while True:
            if not self._held:
                self._held = self._next()
            block = bytes(self._held[:_BLOCK])
            if not block and self._archive == 1 and self._offset == 0:
                raise _Damage("empty file", "the file has no bytes")
            if not block:
                return False
            if self._archive == 1 or block.strip(b"\0"):
                break
            self._held = self._held[len(block) :]
            self._offset += len(block)
        try:
            if len(block) < _BLOCK or block != _ZEROS:
                tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            if self._archive == 1:
                raise _Damage("not a tar file", str(error)) from None
            detail = f"the content behind the end mark, at byte {self._offset}, is no tar file"
            raise _Damage("damaged shard", detail) from None
        return True

    def check_end(self) -> None:
        """Check, after the iterator ended, that an end mark ended it.

        Raises:
            _Damage: if there was no end mark.
        """
        if self._last == _ZEROS:
            return
        self._held = self._held or self._next()
        if not self._held:
            raise _Damage("truncated shard", f"the file stops at byte {self._offset} without an end mark")
        raise _Damage("damaged shard", f"no member header before byte {self._offset}")

    def check_command(self) -> None:
        """Check that a command whose output was read to its end succeeded.

        Raises:
            _Damage: if it failed.
        """
        if isinstance(self._file, PipeStream) and (problem := self._file.problem()):
            raise _Damage("unreadable shard", problem)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self) -> memoryview:
        try:
            return memoryview(self._file.read(_CHUNK))
        except TruncatedFile as error:
            self._failed("truncated shard", error)
        except OSError as error:
            self._failed("unreadable shard", error)

    def _failed(self, reason: str, error: OSError) -> NoReturn:
        self.problem = _Damage(reason, str(error.strerror or error))
        raise self.problem


def _end_of_zeros(data: bytes) -> int | None:
    """Offset of the end of the first whole block of zeros; None if there is none."""
    start = data.find(_ZEROS)
    while start >= 0:
        start = -(-start // _BLOCK) * _BLOCK
        if data[start : start + _BLOCK] == _ZEROS:
            return start + _BLOCK
        start = data.find(_ZEROS, start)
    return None


class _Groups:
    """Groups the members of a shard to samples, by key."""

    def __init__(self, source: str) -> None:
        self._source, self._archive = source, 0
        self._key: str | None = None
        self._members: dict[str, bytes] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._keys: set[str] = set()
        self._earlier: set[str] = set()

    def begin_archive(self) -> None:
        """Count the archives of one shard: a key repeated in a later archive gets that archive's number as suffix."""
        self._archive += 1
        self._earlier |= self._keys
        self._keys = set()

    def take(self, name: str, content: bytes) -> Iterator[StreamedSample | RejectedSample]:
        """Add a member; yields the sample before it, if the member is the first of the next sample."""
        parts = member_name(name)
        if parts is None:
            return
        if not parts.safe:
            self._refused.setdefault((parts.key, UNSAFE), parts.leads_out())
            return
        if parts.key != self._key:
            yield from self._flush()
            if parts.key in self._keys:
                self._refused.setdefault((parts.key, DUPLICATE), parts.comes_again() + MUST_BE_ADJACENT)
                return
            self._key = parts.key
            self._keys.add(parts.key)
        if parts.extension in self._members:
            self._refused.setdefault((parts.key, DUPLICATE), parts.comes_again())
        else:
            self._members[parts.extension] = content

    def end(self, damaged: bool = False) -> Iterator[StreamedSample | RejectedSample]:
        """The last sample of an archive; if it is incomplete in a damaged shard, it is part of the damage."""
        yield from self._flush(last=damaged)

    def _flush(self, last: bool = False) -> Iterator[StreamedSample | RejectedSample]:
        key, members = self._key, self._members
        self._key, self._members = None, {}
        if key is not None:
            name = f"{key} ({self._archive})" if key in self._earlier else key
            contents = list(members.values())
            listed = [
                (extension, position, len(content)) for position, (extension, content) in enumerate(members.items())
            ]
            try:
                for image, _, text, _, extra, _, own in samples_of(name, listed):
                    caption, record = (None if position < 0 else contents[position] for position in (text, extra))
                    yield StreamedSample(own.decode(), contents[image], caption, record)
            except IncompleteSample as problem:
                if not last:
                    detail = member_list(key, listed) + MUST_BE_ADJACENT * (len(listed) == 1)
                    yield RejectedSample(source=self._source, key=name, reason=str(problem), detail=detail)
        for (key, reason), detail in self._refused.items():
            yield RejectedSample(source=self._source, key=key, reason=reason, detail=detail)
        self._refused = {}
