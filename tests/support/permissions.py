"""What whoever shares a folder may read of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def group_umask() -> Iterator[None]:
    """Let the group read new files, and nobody else: another choice than most machines make."""
    before = os.umask(0o027)
    try:
        yield
    finally:
        os.umask(before)


def permissions(folder: Path) -> dict[str, str]:
    """Permissions of every file under a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): stat.filemode(path.stat().st_mode) for path in files}
