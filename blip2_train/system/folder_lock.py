"""A lock that one process holds on a folder, so that no second one writes the same files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from blip2_train.errors import FolderInUse

LOCK = ".lock"
"""Name of the locked file, which contains the owner of the lock."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock_folder(folder: Path, subject: str, choices: str) -> Iterator[None]:
    """Hold the lock of a folder, which exists; it ends with this process, however that ends.

    The lock is the system's (POSIX, also on NFS), not the file: what a killed process leaves behind keeps nobody out.
    Processes that this one starts or forks do not hold it. A file system without locks has none, and nothing is refused
    there.

    Args:
        folder: The folder to lock.
        subject: The folder in words, for the message: `run folder outputs/x`.
        choices: The remedies if another process holds the lock, for the message.

    Raises:
        FolderInUse: if another process holds it, naming that process and the machine.
        OSError: if the folder cannot be written to.
    """
    path = folder / LOCK
    file = _locked(path)
    if file is None:
        raise FolderInUse(f"{subject} is in use by {_owner(path)}: {choices}")
    try:
        yield
    finally:
        with suppress(OSError):  # while the lock is held: whoever opened the file meanwhile sees that it is gone
            path.unlink()
        file.close()


def _locked(path: Path) -> IO[str] | None:
    """The opened and locked file, None if another process has it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                return None
        if _is_still(path, file):
            break
        file.close()  # its owner removed it between our opening and locking
    file.truncate(0)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    file.write(json.dumps({"host": platform.node(), "process": os.getpid(), "since": started}) + "\n")
    file.flush()
    return file


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    """The process that holds the lock, as its file names it."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(owner['process'])} on {str(owner['host'])[:100]!r} since {str(owner['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
