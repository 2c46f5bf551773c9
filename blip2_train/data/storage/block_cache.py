"""A cache folder with blocks of remote files, of limited size, for all processes of a machine."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2_train.data.storage.remote import RemoteFile, Storage, TruncatedFile
from blip2_train.errors import ConfigError

_LOGGER = logging.getLogger(__name__)
_LOCKS = 256
"""Number of lock files: a block is fetched under the lock that its name determines."""
_ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished block counts as abandoned by a killed process."""


class BlockCache:
    """Reads remote files through blocks on a local disk.

    A block is written atomically; one process fetches it while others wait; the least recently used block is removed
    first. A file that changes on the storage gets new blocks.

    Args:
        storage: the remote storage; its options contain the folder and the sizes.

    Raises:
        ConfigError: if the folder cannot be written.
    """

    def __init__(self, storage: Storage) -> None:
        options = storage.options
        assert options.cache is not None
        self._storage, self._folder = storage, Path(options.cache).expanduser()
        self._limit, self._block_size = int(options.cache_gb * 1e9), max(1, int(options.read_ahead_mb * 1e6))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked("room"):
                pass
        except OSError as error:
            raise ConfigError(f"data.storage.cache {self._folder} cannot be written: {error.strerror}") from None

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """The bytes of `file` from `start` to before `end`; raises what `Storage.read` raises."""
        block_indices = range(start // self._block_size, -(-end // self._block_size))
        try:
            return b"".join(self._part(file, block_index, start, end) for block_index in block_indices)
        except TruncatedFile:  # the requested bytes may lie before the damage
            return self._storage.read(file, start, end)

    def _part(self, file: RemoteFile, block_index: int, start: int, end: int) -> bytes:
        """The part of the bytes from `start` to before `end` that lies in block `block_index`."""
        first = block_index * self._block_size
        last = min(first + self._block_size, file.size)
        identity = f"{file.url}\0{file.version}\0{file.size}\0{self._block_size}\0{block_index}"
        path = self._folder / f"{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}.piece"
        inside = max(start, first) - first, min(end, last) - first
        if (kept := _kept(path, last - first, *inside)) is not None:
            return kept
        with self._locked(f"{int(path.name[:8], 16) % _LOCKS:03d}"):
            if (kept := _kept(path, last - first, *inside)) is not None:  # another process was faster
                return kept
            data = self._storage.read(file, first, last)
            try:
                self._keep(path, data)
            except OSError as error:
                _LOGGER.warning("%s cannot keep what is read: %s", self._folder, error.strerror)
        return data[slice(*inside)]

    def _keep(self, path: Path, data: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            with self._locked("room"):
                self._make_room(len(data))
                os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        """Remove the least recently used blocks, until another of `size` bytes fits."""
        blocks, total = [], size
        for entry in os.scandir(self._folder):
            try:
                state = entry.stat()
            except FileNotFoundError:
                continue
            if entry.name.endswith(".piece"):
                blocks.append((state.st_mtime_ns, entry.path))
                total += state.st_size
            elif entry.name.endswith(".part") and time.time() - state.st_mtime > _ABANDONED_AFTER:
                Path(entry.path).unlink(missing_ok=True)
        for _, path in sorted(blocks):
            if total <= self._limit:
                break
            total -= os.stat(path).st_size
            os.unlink(path)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock against other processes and threads; it ends with this process."""
        with (self._folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _kept(path: Path, size: int, start: int, end: int) -> bytes | None:
    """A part of a complete block, which is marked as used now; None if the block is missing or incomplete."""
    try:
        with path.open("rb", 0) as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            os.utime(file.fileno())
            return os.pread(file.fileno(), end - start, start)
    except FileNotFoundError:
        return None
