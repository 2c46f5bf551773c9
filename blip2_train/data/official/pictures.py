"""A picture of an official data set with its captions, and the checks that hold for all of their files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from blip2_train.errors import ShardError

_NUMBER = re.compile(r"(?:^|_)(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedPicture:
    """A picture and what people said of it."""

    image_id: int
    """Its official number: COCO's, or the number that ends the name of its file."""
    path: str
    """Of the picture, below the folder of the pictures; empty if the file does not say it."""
    captions: tuple[str, ...]
    """As written; empty where they are not published."""
    split: str = ""
    """Karpathy's `train`, `restval`, `val` or `test`; empty if the file does not say it."""
    domain: str = ""
    """NoCaps' `in-domain`, `near-domain` or `out-domain`; empty in other sets."""


def image_number(path: str) -> int:
    """The number that ends the name of a picture's file, which is its identity in COCO and Flickr30k.

    Raises:
        ValueError: if there is none.

    Example:
        >>> image_number("val2014/COCO_val2014_000000522418.jpg"), image_number("flickr30k-images/1000092795.jpg")
        (522418, 1000092795)
    """
    found = _NUMBER.search(PurePosixPath(path).stem)
    if found is None:
        raise ValueError(f"the name of {path!r} ends with no number")
    return int(found[1])


def read_json(path: str | Path, form: str) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        form: What it should look like, for the error.

    Raises:
        ShardError: if it is missing, cannot be read, is broken or empty.
    """
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"annotation file {path} does not exist") from None
    except OSError as error:
        raise ShardError(f"annotation file {path} cannot be read ({error.strerror}); give a JSON file") from None
    except ValueError as error:
        raise ShardError(f"annotation file {path} is broken JSON ({error}); get it again, expected {form}") from None
    if not isinstance(content, list | dict) or not content:
        raise ShardError(f"annotation file {path} holds nothing; expected {form}")
    return content


@contextmanager
def naming(path: str | Path, entry: object, form: str) -> Iterator[None]:
    """Turn whatever a misshapen entry raises into an error that names file and entry."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        told = f"lacks {problem}" if isinstance(problem, KeyError) else str(problem)
        raise ShardError(f"{path}: entry {entry} is not of the form {form} ({told}); take the official file") from None


def unique(path: str | Path, pictures: Iterable[CaptionedPicture]) -> list[CaptionedPicture]:
    """The pictures, none of which comes twice.

    Raises:
        ShardError: naming the first that does.
    """
    found: dict[int, CaptionedPicture] = {}
    for picture in pictures:
        if (other := found.setdefault(picture.image_id, picture)) is not picture:
            names = " and ".join(dict.fromkeys(one.path or "no path" for one in (other, picture)))
            raise ShardError(f"{path}: picture {picture.image_id} comes twice ({names}); remove one of the two entries")
    return list(found.values())


def check_no_leak(
    train: Sequence[CaptionedPicture],
    held_out: Sequence[CaptionedPicture],
    *,
    train_file: object,
    held_out_file: object,
) -> None:
    """Refuse two sets of one numbering, COCO's for instance, that share pictures.

    Raises:
        ShardError: naming the first pictures that are in both.
    """
    seen = {picture.image_id for picture in train}
    if both := [picture for picture in held_out if picture.image_id in seen]:
        raise ShardError(
            f"{len(both)} of the {len(held_out)} pictures of {held_out_file} are in {train_file} too (first: "
            f"{_first(both)}); a model trained on the one must not be tested on the other"
        )


def check_split(pictures: Sequence[CaptionedPicture], wanted: Collection[int], *, file: object, split: str) -> None:
    """Refuse pictures that are not exactly those of a split.

    Args:
        pictures: What the file holds.
        wanted: Numbers of the split's pictures.
        file: For messages.
        split: For messages: `test of dataset_coco.json`.

    Raises:
        ShardError: naming the first pictures of another split, or the first that are missing.
    """
    wanted = set(wanted)
    if foreign := [picture for picture in pictures if picture.image_id not in wanted]:
        raise ShardError(
            f"{file} is of another split: {len(foreign)} of its {len(pictures)} pictures are not in {split} (first: "
            f"{_first(foreign)}); take the file of that split"
        )
    if lacking := sorted(wanted - {picture.image_id for picture in pictures}):
        raise ShardError(
            f"{file} lacks {len(lacking)} of the {len(wanted)} pictures of {split} (first: "
            f"{', '.join(map(str, lacking[:3]))}); get the whole file"
        )


def missing_pictures(pictures: Iterable[CaptionedPicture], folder: str | Path) -> list[str]:
    """Paths below `folder` of the pictures that are not there; each folder is listed once only.

    Raises:
        ShardError: if `folder` is none.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ShardError(f"picture folder {folder} does not exist; put the pictures there")
    there: dict[str, set[str]] = {}
    missing = []
    for picture in pictures:
        parent, _, name = picture.path.rpartition("/")
        if parent not in there:
            there[parent] = set(os.listdir(root / parent)) if (root / parent).is_dir() else set()
        if name not in there[parent]:
            missing.append(picture.path)
    return missing


def _first(pictures: Sequence[CaptionedPicture]) -> str:
    return ", ".join(f"{one.image_id} {one.path}".strip() for one in pictures[:3])
