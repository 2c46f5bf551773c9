"""What the `.txt` and the `.json` of a sample say, in tar shards and in folders."""

from __future__ import annotations

import json
from typing import Any

from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shard_writer import RECORD_KEYS
from blip2_train.data.text import NOT_UNICODE


def captions_of(text: bytes | None, extra: bytes | None, key: str | None = None) -> tuple[str, ...]:
    """The captions that a sample's `.txt` and `.json` hold, by the rule of `ShardSource`.

    Raises:
        UnusableSample: if neither holds one, or the one that counts cannot be read.
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
    """Captions as a tuple, without the empty places of a list."""
    captions = [captions] if isinstance(captions, str) else captions
    found = [caption for caption in captions if caption is not None] if isinstance(captions, list) else []
    if not found or not all(isinstance(caption, str) for caption in found):
        raise UnusableSample("no caption in json", expected)
    return tuple(found)


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
    """What a sample's `.json` says.

    Raises:
        UnusableSample: if it is no JSON, not Unicode, or nested deeper than can be read.
    """
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:
        raise UnusableSample(NOT_UNICODE, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise UnusableSample("unreadable json", str(error)) from None


def image_id_of(extra: bytes | None) -> int | None:
    """The `"image_id"` of a sample's `.json`, equal for samples of one picture; None if absent."""
    image_id = _record(extra).get("image_id")
    return image_id if isinstance(image_id, int) else None


def details_of(extra: bytes | None) -> dict[str, Any]:
    """Entries of a sample's `.json` that say more than its captions and what img2dataset found out."""
    known = {*RECORD_KEYS, "captions"} - {"url"}
    return {name: value for name, value in _record(extra).items() if name not in known}


def _record(extra: bytes | None) -> dict[str, Any]:
    """The entries of a sample's `.json`; none if it has no such file, or one that cannot be read."""
    try:
        content = json_of(extra) if extra is not None else None
    except UnusableSample:
        return {}
    return content if isinstance(content, dict) else {}
