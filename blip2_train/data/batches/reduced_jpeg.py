"""Crops of JPEGs that are decoded no larger than the crop needs, and resized as levels of 255.

The decoder is libjpeg-turbo either way: through simplejpeg, or, where that is not installed or refuses a file, through
Pillow, which copies more; both give the same levels. The resizing is torch's bicubic one for uint8, which follows
Pillow's to a level.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from blip2_train.data.batches.images import is_turned

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_SPARE = 1.2
"""Pixels of a decoded crop per pixel of the result, at least: with fewer, whole pixels are too coarse for its edges."""
Crop = tuple[int, int, int, int]
"""Top, left, height and width, in pixels of the whole image."""


def reduced_crop(
    content: bytes, orientation: int | None, side: int, choose: Callable[[int, int], Crop]
) -> Tensor | None:
    """A crop of an upright JPEG, resized to a square.

    Args:
        content: content of the file.
        orientation: EXIF orientation stored beside the file, used if the file itself has none.
        side: pixels per side of the square.
        choose: returns the crop for the image's width and height; called once at most.

    Returns:
        `(3, side, side)`, uint8; None if the file is no JPEG in grey or colour, is turned, or cannot be read: then it
        is to be decoded whole, which also tells what is wrong with it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("JPEG",))
            if image.format != "JPEG" or image.mode not in ("L", "RGB") or is_turned(image, orientation):
                return None
            top, left, height, width = choose(*image.size)
            times = next(times for times in (8, 4, 2, 1) if times == 1 or min(height, width) >= _SPARE * times * side)
            levels = _decoded(content, image, times)
    except Exception:  # of Pillow many types; decoding it whole raises the error that counts
        return None
    rows = slice(*_span(top, height, times, levels.shape[0]))
    columns = slice(*_span(left, width, times, levels.shape[1]))
    cut = torch.from_numpy(levels[rows, columns]).permute(2, 0, 1)[None]
    return interpolate(cut, (side, side), mode="bicubic", antialias=True)[0].contiguous()


def _decoded(content: bytes, image: Image.Image, times: int) -> NDArray[np.uint8]:
    """Levels `(H, W, 3)` of an image `times` smaller, sides rounded up."""
    width, height = (-(-side // times) for side in image.size)
    if simplejpeg is not None:
        least = (height, width) if times > 1 else (0, 0)
        try:
            levels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB", False, False, *least)
        except ValueError:  # it refuses files with small faults, which Pillow reads
            pass
        else:
            if levels.shape[:2] == (height, width):
                return levels
    if times > 1:
        image.draft(None, (image.width // times, image.height // times))
    return np.array(image.convert("RGB"))


def _span(first: int, count: int, times: int, size: int) -> tuple[int, int]:
    """First pixel and end of a span in an image `times` smaller with `size` pixels; at least one pixel."""
    start = min(round(first / times), size - 1)
    return start, max(start + 1, min(round((first + count) / times), size))
