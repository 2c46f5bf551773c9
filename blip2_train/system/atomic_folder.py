"""Replaces a folder by a finished one, so that a complete one exists at every moment, also if a process is killed."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

_EXCHANGE = 2
"""Linux's RENAME_EXCHANGE: two names are exchanged in one step."""
_HERE = -100
"""AT_FDCWD: paths start from the working folder."""
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def replace_folder(finished: Path, folder: Path) -> None:
    """Give a finished folder beside it the name of another one, which is removed if it is there.

    On Linux the two are exchanged in one step. Where the system or the file system knows no such step, a kill between
    two renames leaves the older folder as `.<name>.previous`, from where `clear_leftovers` brings it back.

    Raises:
        OSError: if it cannot be renamed.
    """
    previous = folder.with_name(f".{folder.name}.previous")
    for path in (path for path in finished.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # before the names: a machine that loses power must not keep these alone
    if not folder.exists():
        os.replace(finished, folder)
    elif _exchanged(finished, folder):
        shutil.rmtree(finished, ignore_errors=True)  # which is the older one now
    else:
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(folder, previous)
        os.replace(finished, folder)
        shutil.rmtree(previous, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what a kill has left beside a folder while it was written or replaced, and bring back an older one."""
    previous = folder.with_name(f".{folder.name}.previous")
    if previous.is_dir() and not folder.exists():
        os.replace(previous, folder)
    shutil.rmtree(previous, ignore_errors=True)
    shutil.rmtree(folder.with_name(f".{folder.name}.unfinished"), ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names; False, with nothing changed, where the system cannot do that."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
