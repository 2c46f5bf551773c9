"""Decodes the bytes of an image file to an upright RGB image."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import AvifImagePlugin as _  # noqa: F401 (so that `Image.open` knows the format)
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from blip2_train.data.rejections import UnusableSample

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by its EXIF orientation."""
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")

Reduction = Callable[[int, int], int]
"""Returns for an image's width and height the factor by which it may be decoded smaller: 1, 2, 4 or 8."""


class ImageFile(NamedTuple):
    """The content of an image's file, and its orientation if that is stored beside the file."""

    content: bytes
    orientation: int | None = None
    """EXIF orientation, 1 to 8, used if the file itself has none."""


def decode_image(data: bytes, reduction: Reduction | None = None, orientation: int | None = None) -> Image.Image:
    """Decode an image to mode RGB, whatever its mode: transparency on white, 16 bits scaled to 8, turned upright.

    Args:
        data: content of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file; the content counts, not the file's extension.
            Of several frames the first is taken.
        reduction: called for upright JPEGs, which are decoded smaller by this factor at a fraction of the cost (libjpeg
            skips what the smaller image does not show); sides that do not divide are rounded up.
        orientation: EXIF orientation (1 = upright, 6 = to be turned by 90 degrees clockwise, …) stored beside the file,
            as in img2dataset's records; it is used if the file itself has none.

    Raises:
        UnusableSample: `"image too large"` by its header, before anything is decoded (Pillow's limit,
            `PIL.Image.MAX_IMAGE_PIXELS`, 89 million pixels unless changed), or `"unreadable image"`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, one per image
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            beside = _TRANSPOSE_BY_ORIENTATION.get(orientation) if orientation and _orientation(image) is None else None
            if reduction is not None and beside is None:
                _reduce(image, reduction)
            image.load()
            return upright_rgb(image if beside is None else image.transpose(beside))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnusableSample("image too large", str(error)) from None
    except UnidentifiedImageError:
        raise UnusableSample("unreadable image", f"not a {', '.join(_FORMATS)} file") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError, struct.error) as error:
        raise UnusableSample("unreadable image", f"{type(error).__name__}: {error}") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image in mode RGB, whatever its mode, turned by its EXIF orientation, transparent parts white."""
    return _on_white(_upright(image))


def _reduce(image: Image.Image, reduction: Reduction) -> None:
    """Let a JPEG decode smaller; images that are decoded, turned, or of another format stay as they are."""
    if image.format == "JPEG" and image.mode in ("L", "RGB") and not is_turned(image):
        times = reduction(*image.size)
        if times > 1:
            image.draft(None, (image.width // times, image.height // times))


def _orientation(image: Image.Image) -> int | None:
    """EXIF orientation of an image, 1 to 8; None if its file has none."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's EXIF parser raises many types; the pixels are fine without it
        return None
    return orientation if orientation in range(1, 9) else None


def is_turned(image: Image.Image, beside: int | None = None) -> bool:
    """Whether the EXIF orientation is another than upright: turned or mirrored.

    Args:
        image: an opened image.
        beside: EXIF orientation stored beside the file, used if the file itself has none.
    """
    own = _orientation(image)
    return (own if own is not None else beside) in _TRANSPOSE_BY_ORIENTATION


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; an image with damaged EXIF data is left as it is."""
    if not is_turned(image):
        return image  # Pillow would copy it
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as in `_orientation`
        return image


def _on_white(image: Image.Image) -> Image.Image:
    """The image in mode RGB, transparent parts white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white level no file states")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")
