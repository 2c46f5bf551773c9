"""Files, lines and median of each room, and lines in the wheel."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import NamedTuple

_SPLIT = ("data", "evaluation", "checkpoints", "cli")
"""Packages of blip2_train whose folders are rooms of their own."""


class Size(NamedTuple):
    """How large a room is."""

    room: str
    files: int
    """Python files that are not empty."""
    lines: int
    median: float
    """Lines of a file."""
    longest: int


def sizes_below(root: Path) -> list[Size]:
    """One row per room of the package, of scripts and of tests, with totals of each."""
    rows = []
    for top in ("blip2_train", "scripts", "tests"):
        rooms: dict[str, list[int]] = {}
        for path in sorted((root / top).rglob("*.py")):
            if lines := len(path.read_text("utf-8").splitlines()):
                rooms.setdefault(room_of(path.relative_to(root / top)), []).append(lines)
        rows += [_size(f"{top}/{room}" if room else f"{top}, files", lines) for room, lines in sorted(rooms.items())]
        rows.append(_size(f"{top} in all", [one for lines in rooms.values() for one in lines]))
    return rows


def room_of(path: Path) -> str:
    """The room of a file, by its path below the package: `models`, `data/shards`; empty for files beside the rooms."""
    *folders, _ = path.parts
    return "/".join(folders[: 2 if folders and folders[0] in _SPLIT else 1])


def _size(room: str, lines: list[int]) -> Size:
    return Size(room, len(lines), sum(lines), median(lines) if lines else 0, max(lines, default=0))
