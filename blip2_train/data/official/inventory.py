"""Verifies the files of an official data set: present, complete, and without images of other splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Literal

from blip2_train.data.official.checks import check_no_leak, check_split, missing_images
from blip2_train.errors import ShardError


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The content of a file, as counts and images."""

    counts: Mapping[str, int]
    """Counts of its entries by kind: `{"val": 5000, "captions": 25010}`."""
    images: Mapping[int | str, str]
    """Paths below the folder of the images, by id."""
    splits: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    """Ids by split, if a file has several splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialFile:
    """A file, or several that are read together, with the expected content."""

    paths: tuple[str, ...]
    """Below the data folder."""
    origin: str
    """Where it can be downloaded."""
    read: Callable[[Sequence[Path]], Contents]
    """Reads the files; raises `ShardError`."""
    counts: Mapping[str, int]
    """Expected `Contents.counts`; kinds that are not listed are not checked."""
    folders: tuple[str, ...]
    """Folders of the images below the data folder; an image may be in any of them."""
    optional: bool = False
    """Whether the set is complete without it."""
    apart_from: str = ""
    """Path of another file of the set that must not share an image with this one."""
    split_of: tuple[str, str] | None = None
    """Path of another file of the set, and its split (or several, joined by +) whose images this file must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """The result of verifying a file."""

    path: str
    state: Literal["whole", "missing", "wrong", "not there"]
    """`not there` is not an error: the file is optional."""
    text: str
    """One line for the report."""

    @property
    def good(self) -> bool:
        """Whether no action is needed."""
        return self.state in ("whole", "not there")


def verify(files: Sequence[OfficialFile], data_dir: str | Path) -> Iterator[FileStatus]:
    """Verify the files of a data set, one after the other.

    Args:
        files: The files; those with which others are compared come first.
        data_dir: The data folder.
    """
    root = Path(data_dir).expanduser()
    seen: dict[str, Contents] = {}
    for file in files:
        name = " + ".join(file.paths)
        if absent := [path for path in file.paths if not (root / path).is_file()]:
            state: Literal["not there", "missing"] = "not there" if file.optional else "missing"
            which = "put it" if absent == list(file.paths) else f"put {' and '.join(absent)}"
            yield FileStatus(path=name, state=state, text=f"{which} below {root}; from {file.origin}")
            continue
        try:
            seen[file.paths[0]] = contents = file.read([root / path for path in file.paths])
            _check(file, contents, seen, root)
        except ShardError as error:
            yield FileStatus(path=name, state="wrong", text=str(error))
        else:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in contents.counts.items())
            yield FileStatus(path=name, state="whole", text=f"{counts}; all {len(contents.images):,} images are there")


def _check(file: OfficialFile, contents: Contents, seen: Mapping[str, Contents], root: Path) -> None:
    name = file.paths[0]
    for kind, expected in file.counts.items():
        if (count := contents.counts.get(kind, 0)) != expected:
            raise ShardError(f"it holds {count:,} {kind} instead of {expected:,}; get it again from {file.origin}")
    if file.apart_from in seen:
        other = seen[file.apart_from].images
        check_no_leak(other, contents.images, train_file=file.apart_from, held_out_file=name)
    if file.split_of is not None and file.split_of[0] in seen:
        whole, split = file.split_of
        members: list[int | str] = [image_id for part in split.split("+") for image_id in seen[whole].splits[part]]
        check_split(contents.images, members, file=name, split=f"{split} of {whole}")
    folders = [folder for folder in file.folders if (root / folder).is_dir()]
    if not folders:
        raise ShardError(f"its images are not there; put them into {' or '.join(str(root / f) for f in file.folders)}")
    paths = list(contents.images.values())
    if missing := reduce(lambda still, folder: missing_images(still, root / folder), folders, paths):
        raise ShardError(
            f"{len(missing):,} of its {len(paths):,} images are not in {' or '.join(str(root / f) for f in folders)} "
            f"(first: {', '.join(missing[:3])}); put them there"
        )
