"""The image files below a folder, by their extensions, and the files that are skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from blip2_train.data.shards.tar import IMAGES, MORE_IMAGES

ENDINGS = (*IMAGES, *MORE_IMAGES)
"""Extensions of image files, without dot, in lower case."""
HIDDEN, LINK, UNREADABLE = "hidden file", "link to a folder", "unreadable folder"


class ListedFile(NamedTuple):
    """A file below a folder, or something else that is skipped."""

    path: str
    """Relative to the folder, as the file system has it."""
    passed_over: str = ""
    """Reason why it is no image; empty if it is one."""


def files_below(folder: Path, beside: Sequence[str] = ()) -> Iterator[ListedFile]:
    """The files below a folder at any depth, in the order of their names, those of a folder before those below it.

    Hidden files are no images, whatever their extension (macOS makes `._photo.jpg`); links to folders are not followed.

    Args:
        folder: the folder.
        beside: extensions of files that belong to an image with the same name and are left out of the result. With
            them, an image with an unusual extension (TIFF, …) beside one with a usual extension is skipped: both are
            one sample's.
    """
    failed: list[str] = []
    for directory, below, names in os.walk(folder, onerror=lambda error: failed.append(str(error.filename))):
        below.sort()
        inner = os.path.relpath(directory, folder)
        endings = {name: "" if name.startswith(".") else _ending(name) for name in names}
        usual = {_stem(name) for name, ending in endings.items() if ending in IMAGES}
        stems = {_stem(name) for name, ending in endings.items() if ending in ENDINGS}
        for name in sorted(names):
            ending, path = endings[name], os.path.normpath(os.path.join(inner, name))
            if ending in IMAGES or (ending in MORE_IMAGES and not (beside and _stem(name) in usual)):
                yield ListedFile(path)
            elif ending in MORE_IMAGES:
                yield ListedFile(path, "another image of the same name")
            elif not (ending in beside and _stem(name) in stems):
                yield ListedFile(path, HIDDEN if name.startswith(".") else f".{ending} file" if ending else "no ending")
        for name in below:
            if os.path.islink(os.path.join(directory, name)):
                yield ListedFile(os.path.normpath(os.path.join(inner, name)), LINK)
    yield from (ListedFile(os.path.relpath(path, folder), UNREADABLE) for path in failed)


def passed_over_summary(passed_over: Iterable[str]) -> str:
    """Counts of skipped files, in one line: `"3 passed over: 2 .txt file, 1 hidden file"`; empty if none was."""
    counts = Counter(passed_over)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
    return f"{counts.total():,} passed over: {kinds}" if counts else ""


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
