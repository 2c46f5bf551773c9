"""Lists, reads and writes files on remote storage (`s3://`, `gs://` and others of fsspec), with retries."""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from blip2_train.data.storage.drivers import call, connected, version
from blip2_train.data.storage.options import StorageOptions
from blip2_train.errors import ConfigError, ShardError

_LOGGER = logging.getLogger(__name__)
Answer = TypeVar("Answer")
_LONGEST_PAUSE = 30.0
"""Longest pause between two attempts, seconds (before the jitter)."""
_MAX_FAILURES = 3
"""Requests in a row that may fail in every attempt before an error ends the run."""
_MIN_UPLOAD_RATE = 1 << 20
"""Bytes per second that an upload must reach, else it times out."""
_BUFFER = 8 << 20
"""Bytes per request when a file is read from its start."""
_FINAL_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
"""Errors that another attempt would not change."""
_jitter = random.SystemRandom()  # separate, so that nothing is drawn from the generators of a run


def is_remote(path: str) -> bool:
    """Whether a path is an address with a protocol, and not a local path."""
    return "://" in path


@dataclass(frozen=True)
class RemoteFile:
    """A file, as in the listing of the storage."""

    url: str
    size: int
    """Bytes."""
    version: str = ""
    """Its ETag or time of change, which changes with the content."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """The extension, with its dot."""
        return PurePosixPath(self.url).suffix

    @property
    def stem(self) -> str:
        """The last part of the address, without the extension."""
        return PurePosixPath(self.url).stem

    @property
    def parent(self) -> str:
        """The address without its last part."""
        return self.url.rpartition("/")[0]


AnyFile = Path | RemoteFile
"""A local or remote file."""


class RemoteFailure(OSError):
    """A request failed in every attempt."""


class TruncatedFile(OSError):
    """A file ends before the requested bytes."""


class Storage:
    """Requests to remote storage; picklable, and each process makes its own connections.

    A request that fails for a possibly temporary reason (errors 500 and 503, a timeout, a broken connection) is
    repeated after a pause, which doubles each time and is drawn between half and all of that, so that many readers do
    not retry at once.

    Args:
        options: number of attempts, pauses and timeout.
    """

    def __init__(self, options: StorageOptions | None = None) -> None:
        self.options = options or StorageOptions()
        self._failures = 0

    def find(self, url: str) -> list[RemoteFile]:
        """The files of a glob, or directly in a folder, or the file itself, sorted; may be empty.

        Raises:
            OSError: if the storage does not respond or denies access.
        """
        system = connected(url)
        path = system._strip_protocol(url)
        request = partial(call, system, timeout=self.options.timeout)
        try:
            if has_magic(path):
                entries = self._with_retries(url, partial(request, "glob", path, detail=True)).values()
            else:  # not by listing at once: drivers would list the folder in which a file lies
                entries = [self._with_retries(url, partial(request, "info", path))]
                if entries[0]["type"] == "directory":
                    entries = self._with_retries(url, partial(request, "ls", path, detail=True))
        except FileNotFoundError:
            return []
        files = [
            RemoteFile(system.unstrip_protocol(entry["name"]), int(entry["size"]), version(entry))
            for entry in entries
            if entry["type"] == "file"
        ]
        return sorted(files, key=lambda file: file.url)

    def file(self, url: str) -> RemoteFile | None:
        """The file at an address; None if it does not exist. Raises what `find` raises."""
        return next((file for file in self.find(url) if file.url == url), None)

    def read(self, file: RemoteFile, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from `start` to before `end` (the file's size if None), in one request.

        Raises:
            FileNotFoundError: if the file no longer exists.
            TruncatedFile: if it is shorter than listed.
            RemoteFailure: if every attempt failed.
        """
        end = file.size if end is None else end
        if end <= start:
            return b""
        return self._with_retries(file.url, partial(self._range, file, start, end))

    def open(self, file: RemoteFile) -> BinaryIO:
        """The file as a seekable binary file, for reading from its start; it is fetched in chunks."""
        return io.BufferedReader(_Reading(self, file), _BUFFER)

    def put(self, path: Path, url: str) -> None:
        """Upload a file atomically.

        Raises:
            OSError: if that fails.
        """
        system, size = connected(url), path.stat().st_size
        target = system._strip_protocol(url)
        limit = self.options.timeout + size / _MIN_UPLOAD_RATE
        self._with_retries(url, partial(call, system, "put_file", str(path), target, timeout=limit))
        arrived = self.file(url)
        if arrived is None or arrived.size != size:
            raise RemoteFailure(errno.EIO, f"{arrived.size if arrived else 0} of {size} bytes arrived", url)

    def _range(self, file: RemoteFile, start: int, end: int) -> bytes:
        system = connected(file.url)
        path = system._strip_protocol(file.url)
        try:
            data = call(system, "cat_file", path, timeout=self.options.timeout, start=start, end=end)
            problem: Exception = EOFError(f"{len(data)} of {end - start} bytes came")
        except OSError as error:
            if error.errno != errno.EINVAL:  # how a range beyond the end is refused
                raise
            data, problem = b"", error
        if len(data) == end - start:
            return bytes(data)
        size = int(call(system, "info", path, timeout=self.options.timeout)["size"])
        if size < end:
            raise TruncatedFile(errno.EIO, f"it has {size} bytes, {end} are needed", file.url)
        raise problem

    def _with_retries(self, url: str, request: Callable[[], Answer]) -> Answer:
        """Repeat a request until it succeeds, fails for good, or has no attempts left."""
        options, began = self.options, time.monotonic()
        for attempt in range(1, options.attempts + 1):
            try:
                answer = request()
                self._failures = 0
                return answer
            except (*_FINAL_ERRORS, TruncatedFile, ShardError, ConfigError):
                raise
            except Exception as error:  # every driver has errors of its own
                problem = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
            if attempt < options.attempts:
                pause = min(_LONGEST_PAUSE, options.first_pause * 2 ** (attempt - 1)) * _jitter.uniform(0.5, 1)
                _LOGGER.warning("%s: %s; attempt %d follows in %.1f s", url, problem, attempt + 1, pause)
                time.sleep(pause)
        self._failures += 1
        failure = f"no answer in {options.attempts} attempts, {time.monotonic() - began:.0f} s; the last: {problem}"
        if self._failures >= _MAX_FAILURES:
            raise ShardError(
                f"{url}: {failure}. {self._failures} requests in a row failed like that: see whether the storage and "
                "the way to it are well, then start again, or raise data.storage.attempts or .timeout"
            )
        raise RemoteFailure(errno.EIO, failure, url)


class _Reading(io.RawIOBase):
    """A remote file as a raw stream of Python's `io`."""

    def __init__(self, storage: Storage, file: RemoteFile) -> None:
        self._storage, self._file, self._position = storage, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._storage.read(self._file, self._position, min(self._position + len(buffer), self._file.size))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
