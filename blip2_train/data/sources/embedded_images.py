"""Images that stand as base64 text where a path might stand."""

from __future__ import annotations

import base64
import binascii

from blip2_train.data.sources.rejections import UnusableSample

_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "data:image/")
"""Of JPEG, PNG, GIF and WebP files in base64, and of a data URI."""


def is_embedded(text: str) -> bool:
    """Whether a text is an image's file in base64, or a data URI of one; else it is a path.

    Example:
        >>> is_embedded("data:image/png;base64,iVBORw0KGgo="), is_embedded("/9j/cat.jpg")
        (True, False)
    """
    return text.startswith(_STARTS) and "." not in text


def embedded_image(text: str) -> bytes:
    """The file that a text holds.

    Raises:
        UnusableSample: if it is no whole base64.
    """
    try:
        return base64.b64decode(text.rpartition(",")[2])
    except binascii.Error as error:
        raise UnusableSample("unreadable image", f"no base64: {error}") from None
