"""From the bytes of a picture file to an upright RGB picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from blip2_train.data.rejections import UnusableSample

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")

Reduction = Callable[[int, int], int]
"""From a picture's width and height to how many times smaller it may be decoded: 1, 2, 4 or 8."""


def decode_picture(data: bytes, reduction: Reduction | None = None) -> Image.Image:
    """Decode a picture to mode RGB, whatever its mode: transparency on white, 16 bits scaled to 8, turned upright.

    Args:
        data: content of a JPEG, PNG, WebP, GIF or BMP file; the content counts, not the file's extension. Of several
            frames the first is taken.
        reduction: asked of upright JPEGs, which are decoded that much smaller at a fraction of the cost (libjpeg leaves
            out what the smaller picture does not show); sides that do not divide are rounded up.

    Raises:
        UnusableSample: `"picture too large"` by its header, before anything is decoded (Pillow's limit,
            `PIL.Image.MAX_IMAGE_PIXELS`, 89 million pixels unless changed), or `"unreadable picture"`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, one per picture
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if reduction is not None:
                _reduce(image, reduction)
            image.load()
            return upright_rgb(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnusableSample("picture too large", str(error)) from None
    except UnidentifiedImageError:
        raise UnusableSample("unreadable picture", f"not a {', '.join(_FORMATS)} file") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError) as error:
        raise UnusableSample("unreadable picture", f"{type(error).__name__}: {error}") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture in mode RGB, whatever its mode, turned as its EXIF data says, transparent parts white."""
    return _on_white(_upright(image))


def _reduce(image: Image.Image, reduction: Reduction) -> None:
    """Have a picture decoded smaller, unless it is decoded, of another kind, or turned."""
    if image.format == "JPEG" and image.mode in ("L", "RGB") and not _is_turned(image):
        times = reduction(*image.size)
        if times > 1:
            image.draft(None, (image.width // times, image.height // times))


def _is_turned(image: Image.Image) -> bool:
    """Whether the EXIF data say that the picture lies on its side, stands on its head, or is mirrored."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # Pillow's EXIF parser raises many types; the pixels are fine without it
        return False


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture with damaged EXIF data is left as it is."""
    if not _is_turned(image):
        return image  # Pillow would copy it
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image


def _on_white(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, transparent parts white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return image.convert("RGB")
