"""Gives the files that others write for us the permissions of any new file."""

from __future__ import annotations

import shutil
from pathlib import Path


def share_as_usual(*paths: Path) -> None:
    """Give files the permissions that a new file of their folder gets, by the umask and the folder's defaults.

    safetensors 0.8 and what saves through it leave their files readable for their owner alone: a colleague in the
    same group can list an export and not load it.

    Raises:
        OSError: if a folder cannot be written.
    """
    for path in paths:
        example = path.with_name(f".{path.name}.permissions")
        example.touch()
        try:
            shutil.copymode(example, path)
        finally:
            example.unlink()
