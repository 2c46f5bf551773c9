"""Reads the `.txt` and the `.json` of a sample, in tar shards and in folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from blip2_train.data.order import stable_seed
from blip2_train.data.record import Record
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.writer import RECORD_KEYS
from blip2_train.data.text_cleaning import NOT_UNICODE

ORIGINAL_KEYS = ("original_width", "original_height", "exif")
"""Entries of img2dataset's record that describe the image before it was encoded again."""
_ORIENTATION, _UPRIGHT = "Image Orientation", "Horizontal (normal)"
"""Key of the orientation in exifread's output, and its value for an upright image."""
_ORIENTATIONS = {
    _UPRIGHT: 1,
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}
"""EXIF orientation of each value of exifread."""


def shard_record(
    source: str,
    shard: str,
    key: str,
    text: bytes | None,
    extra: bytes | None,
    image: Callable[[], bytes],
    caption_key: str | None = None,
) -> Record:
    """A sample of a shard as a record.

    Args:
        source: name of the source.
        shard: path of the shard below the common folder.
        key: key of the sample in the shard.
        text: its `.txt`; None if it has none.
        extra: its `.json`; None if it has none.
        image: returns the content of the image's file; called when the captions are known.
        caption_key: see `captions_of`.

    Raises:
        UnusableSample: if its text holds no caption.
    """
    captions = captions_of(text, extra, caption_key)
    own_id = image_id_of(extra)
    image_id = stable_seed(source, *((shard, key) if own_id is None else (own_id,)))
    return Record(image=image(), captions=captions, image_id=image_id, orientation=orientation_of(extra))


def captions_of(text: bytes | None, extra: bytes | None, key: str | None = None) -> tuple[str, ...]:
    """The captions in a sample's `.txt` and `.json`, by the rule of `ShardSource`.

    Raises:
        UnusableSample: if neither holds a caption, or the file that is used cannot be read.
    """
    content: Any = None
    if extra is not None:
        try:
            content = json_of(extra)
        except UnusableSample:
            if text is None or key is not None:
                raise
    if key is not None:
        captions = content.get(key) if isinstance(content, dict) else None
        return _checked(captions, f'expected "{key}": "..." or a list of captions')
    captions = content.get("captions") if isinstance(content, dict) else None
    if captions is None and text is not None:
        return (decoded(text),)
    if captions is None:
        captions = content.get("caption") if isinstance(content, dict) else content
    return _checked(captions, 'expected "captions": [...], "caption": "..." or a list of captions')


def _checked(captions: Any, expected: str) -> tuple[str, ...]:
    """Captions as a tuple, without the nulls of a list."""
    captions = [captions] if isinstance(captions, str) else captions
    texts = [caption for caption in captions if caption is not None] if isinstance(captions, list) else []
    if not texts or not all(isinstance(caption, str) for caption in texts):
        raise UnusableSample("no caption in json", expected)
    return tuple(texts)


def decoded(text: bytes) -> str:
    """The text of a file.

    Raises:
        UnusableSample: if it is not UTF-8.
    """
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableSample(NOT_UNICODE, str(error)) from None


def json_of(content: bytes) -> Any:
    """The content of a sample's `.json`.

    Raises:
        UnusableSample: if it is no JSON, not Unicode, or nested too deep.
    """
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:
        raise UnusableSample(NOT_UNICODE, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise UnusableSample("unreadable json", str(error)) from None


def image_id_of(extra: bytes | None) -> int | None:
    """The `"image_id"` of a sample's `.json`, equal for samples of one image; None if absent."""
    image_id = _record(extra).get("image_id")
    return image_id if isinstance(image_id, int) else None


def details_of(extra: bytes | None) -> dict[str, Any]:
    """Entries of a sample's `.json` beside its captions and those that follow from the image's file."""
    known = {*RECORD_KEYS, "captions"} - {"url", *ORIGINAL_KEYS}
    return {name: value for name, value in _record(extra).items() if name not in known}


def orientation_of(extra: bytes | None) -> int | None:
    """EXIF orientation of a sample's image, from its `.json`; None if it has none.

    img2dataset encodes images again without their EXIF data, and stores the output of the library exifread as a JSON
    text: `{"Image Orientation": "Rotated 90 CW", …}`.

    Source: img2dataset 1.47 (`downloader.py`); the values of exifread 3.5.1 and exifread-nocycle 3.0.1.
    """
    name = _exif(_record(extra).get("exif")).get(_ORIENTATION)
    return _ORIENTATIONS.get(name.strip()) if isinstance(name, str) else None


def without_orientation(exif: Any) -> Any:
    """The entry `exif` of a record whose image was encoded again, upright; unchanged if it has no orientation."""
    entries = _exif(exif)
    return json.dumps(entries | {_ORIENTATION: _UPRIGHT}) if _ORIENTATION in entries else exif


def _exif(exif: Any) -> dict[str, Any]:
    """The content of a record's entry `exif`, which is a JSON text."""
    try:
        exif = json.loads(exif) if isinstance(exif, str) else exif
    except (ValueError, RecursionError):
        return {}
    return exif if isinstance(exif, dict) else {}


def _record(extra: bytes | None) -> dict[str, Any]:
    """The entries of a sample's `.json`; empty if it has no such file, or one that cannot be read."""
    try:
        content = json_of(extra) if extra is not None else None
    except UnusableSample:
        return {}
    return content if isinstance(content, dict) else {}
