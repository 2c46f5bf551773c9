"""A picture of an official data set with its captions, and what all readers of such files do alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
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
