"""Whether the files of an official data set are there, whole, and apart from each other."""

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
    """What was found in a file."""

    counts: Mapping[str, int]
    """Numbers of its entries, by a name for each kind: `{"val": 5000, "captions": 25010}`."""
    images: Mapping[int | str, str]
    """Paths below the folder of the images, by id."""
    splits: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    """Ids by split, where a file holds several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialFile:
    """A file, or some that are read together, and what they should hold."""

    paths: tuple[str, ...]
    """Below the data folder."""
    origin: str
    """Where it can be had."""
    read: Callable[[Sequence[Path]], Contents]
    """Reads the files; raises `ShardError`."""
    counts: Mapping[str, int]
    """What `Contents.counts` should say; what is not named here is not checked."""
    folders: tuple[str, ...]
    """Folders of the images below the data folder; an image may lie in any of them."""
    optional: bool = False
    """Whether the set is whole without it."""
    apart_from: str = ""
    """Path of another file of the set that must not have an image in common."""
    split_of: tuple[str, str] | None = None
    """Path of another file of the set, and the split of it (or several, joined by +) whose images these must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """What is to be said of a file."""

    path: str
    state: Literal["whole", "missing", "wrong", "not there"]
    """`not there` is no fault: the file is optional."""
    text: str
    """One line."""

    @property
    def good(self) -> bool:
        """Whether nothing is to be done."""
        return self.state in ("whole", "not there")


def verify(files: Sequence[OfficialFile], data_dir: str | Path) -> Iterator[FileStatus]:
    """Look at the files of a data set, one after the other.

    Args:
        files: In an order in which those that others are compared with come first.
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
