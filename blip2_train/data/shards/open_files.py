"""A bounded number of open shard files per process, for any number of shards and sources."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from blip2_train.errors import ShardError

LIMIT = 64
"""Files that a process keeps open; a window of the training order mixes as many parts of a source."""
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


class OpenFile:
    """A file that is read by offset; it is closed when its last reference is dropped.

    Args:
        path: path of the file.

    Raises:
        OSError: if it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` (no shared position, so threads and forked processes are safe)."""
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class OpenFiles:
    """Cache of the most recently used files, shared by all sources and threads of a process.

    Args:
        limit: largest number of cached files.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._files, self._lock = limit, OrderedDict[tuple[int, Hashable], OpenFile](), Lock()

    def get(self, owner: int, name: Hashable, path: str | os.PathLike[str]) -> OpenFile:
        """The open file that `owner` registered as `name`.

        Raises:
            OSError: if it cannot be opened.
            ShardError: if the process may open no more files, after all cached ones were closed.
        """
        with self._lock:
            if (file := self._files.get((owner, name))) is None:
                while len(self._files) >= self._limit:
                    self._files.popitem(last=False)
                file = self._files[owner, name] = self._open(path)
            self._files.move_to_end((owner, name))
            return file

    def open(self, path: str | os.PathLike[str]) -> OpenFile:
        """A file that is not cached; raises what `get` raises."""
        with self._lock:
            return self._open(path)

    def forget(self, owner: int) -> None:
        """Close the files of `owner`."""
        with self._lock:
            for key in [key for key in self._files if key[0] == owner]:
                del self._files[key]

    def _open(self, path: str | os.PathLike[str]) -> OpenFile:
        try:
            return OpenFile(path)
        except OSError as error:
            if error.errno not in _TOO_MANY_FILES:
                raise
            self._files.clear()
        try:
            return OpenFile(path)
        except OSError as error:
            if error.errno in _TOO_MANY_FILES:
                allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                raise ShardError(
                    f"{path} cannot be opened: this process has as many files open as it may ({allowed:,}); "
                    "raise the limit (ulimit -n 4096)"
                ) from None
            raise


SHARD_FILES = OpenFiles()
"""The open files of this process."""
