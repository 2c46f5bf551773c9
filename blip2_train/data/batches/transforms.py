"""Converts a decoded image to the tower's input; every random choice comes from the generator that is passed.

The results equal torchvision's to the bit, by the same calls of Pillow; so readers need not import torchvision, which
takes a second and 160 MiB.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.normalisation import Normalisation
from blip2_train.data.batches.reduced_jpeg import Crop, reduced_crop
from blip2_train.errors import ConfigError

logger = logging.getLogger(__name__)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
DRAFT_TOLERANCE = 3.0
"""Largest mean difference of a training image from the one decoded whole, levels of 255; a test checks it."""
EXACT, FAST = "exact", "fast"
"""Ways of decoding training images."""


class EvalTransform:
    """Resize to a square, bicubic, without keeping the aspect ratio; scale to 0 … 1; normalise.

    Args:
        image_size: side of the square in pixels.
        mean: per channel, of values in 0 … 1.
        std: per channel.

    Source: `blip_image_eval` of BLIP-2's released code.
    """

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        if image_size < 1:
            raise ConfigError(f"image_size must be positive, got {image_size}")
        self._size = image_size, image_size
        self.normalise = Normalisation(mean, std)
        """Makes pixel values of levels."""

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Transform an RGB image; returns `(3, image_size, image_size)`, float32."""
        return self.normalise(self.levels(image, generator))

    def levels(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """The same without normalising: `(3, image_size, image_size)`, uint8. The generator is not used."""
        return _planes(image.resize(self._size, Image.Resampling.BICUBIC))


class TrainTransform(EvalTransform):
    """A random crop resized to a square, bicubic, then a random flip; scale to 0 … 1; normalise.

    Args:
        image_size: side of the square in pixels.
        mean: per channel, of values in 0 … 1.
        std: per channel.
        crop_scale: smallest and largest share of the image's area that a crop covers.
        crop_ratio: smallest and largest width / height of a crop.
        flip: probability of a horizontal flip.
        draft: let `from_file` decode JPEGs smaller, by Pillow alone, instead of `decoder`.
        decoder: `exact` = files are decoded whole, and resized by Pillow | `fast` = `from_file` decodes JPEGs no larger
            than a crop needs, and resizes without Pillow (`reduced_crop`), 2 to 3 times as fast.

    Source: `blip2_image_train` of BLIP-2's released code; the crop follows torchvision's `RandomResizedCrop` (ten
    tries, then the central crop), with draws from the given generator instead of the global one.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        crop_scale: Sequence[float] = (0.5, 1.0),
        crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        draft: bool = False,
        decoder: str = EXACT,
    ) -> None:
        super().__init__(image_size, mean, std)
        if len(crop_scale) != 2 or not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ConfigError(f"crop_scale needs two numbers, 0 < smallest <= largest <= 1; got {list(crop_scale)}")
        if len(crop_ratio) != 2 or not 0 < crop_ratio[0] <= crop_ratio[1]:
            raise ConfigError(f"crop_ratio needs two numbers, 0 < smallest <= largest; got {list(crop_ratio)}")
        if not 0 <= flip <= 1:
            raise ConfigError(f"flip is a probability, got {flip}")
        self._crop_scale = crop_scale[0], crop_scale[1]
        self._crop_ratio = crop_ratio[0], crop_ratio[1]
        self._flip = flip
        if decoder not in (EXACT, FAST):
            raise ConfigError(f"data.decoder is {EXACT} or {FAST}, got {decoder!r}")
        self._draft = draft
        self.decoder = EXACT if draft else decoder
        """How `from_file` decodes."""

    def go_on_with(self, decoder: str | int | float) -> None:
        """Decode as a run began, unless `draft` is set or this version knows no such decoder."""
        if decoder != self.decoder and decoder in (EXACT, FAST) and not self._draft:
            logger.info("the run began with data.decoder=%s and goes on with it, not with %s", decoder, self.decoder)
            self.decoder = str(decoder)

    def levels(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Transform an RGB image without normalising: `(3, image_size, image_size)`, uint8."""
        return self._finish(image, self._crop(image.width, image.height, generator), generator)

    def from_file(self, content: bytes, generator: torch.Generator, orientation: int | None = None) -> Tensor:
        """Transform an image's file; returns `(3, image_size, image_size)`, float32; see `levels_from_file`."""
        return self.normalise(self.levels_from_file(content, generator, orientation))

    def levels_from_file(self, content: bytes, generator: torch.Generator, orientation: int | None = None) -> Tensor:
        """Transform an image's file without normalising: `(3, image_size, image_size)`, uint8.

        With `decoder="fast"`, an upright JPEG is decoded no larger than its crop needs, see `reduced_crop`; all other
        files, and those that cannot be decoded so, are decoded whole. The mean difference is `DRAFT_TOLERANCE` at most
        on photographs.

        With `draft`, the crop is drawn first, and an upright JPEG is then decoded as small as leaves every pixel of the
        result one of the crop or more: the same crop, of pixels that libjpeg has made smaller instead of Pillow (on
        photographs of web size they differ by 1 to 2 of 255 levels in the mean, `DRAFT_TOLERANCE` at most).

        Args:
            content: content of the image's file, see `decode_image`.
            generator: draws crop and flip.
            orientation: EXIF orientation stored beside the file, see `decode_image`.

        Raises:
            UnusableSample: as `decode_image`.
        """
        crops: list[Crop] = []
        times = 1

        def choose(width: int, height: int) -> Crop:
            crops.append(self._crop(width, height, generator))
            return crops[0]

        if self.decoder == FAST:
            levels = reduced_crop(content, orientation, self._size[0], choose)
            if levels is not None:
                return levels.flip(-1) if _draw(generator) < self._flip else levels

        def reduction(width: int, height: int) -> int:
            nonlocal times
            choose(width, height)
            times = next(fold for fold in (8, 4, 2, 1) if fold == 1 or min(crops[0][2:]) >= fold * self._size[0])
            return times

        image = decode_image(content, reduction if self._draft else None, orientation)
        crop = crops[0] if crops else self._crop(image.width, image.height, generator)
        return self._finish(image, crop, generator, times)

    def _finish(self, image: Image.Image, crop: Crop, generator: torch.Generator, times: int = 1) -> Tensor:
        """Crop, resize, flip; `crop` is in pixels of the full image, `times` larger than `image`."""
        if times == 1:
            top, left, height, width = crop
            cut = image.crop((left, top, left + width, top + height))
            image = cut.resize(self._size, Image.Resampling.BICUBIC)
        else:
            y, x, high, wide = (side / times for side in crop)
            image = image.resize(self._size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + high))
        if _draw(generator) < self._flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _planes(image)

    def _crop(self, width: int, height: int, generator: torch.Generator) -> Crop:
        """Top, left, height and width of a crop, in pixels."""
        lowest, highest = (math.log(ratio) for ratio in self._crop_ratio)
        for _ in range(10):
            area = width * height * _between(*self._crop_scale, generator)
            ratio = math.exp(_between(lowest, highest, generator))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(_draw(generator) * (height - crop_height + 1))
                left = int(_draw(generator) * (width - crop_width + 1))
                return top, left, crop_height, crop_width
        ratio = min(max(width / height, self._crop_ratio[0]), self._crop_ratio[1])
        crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
        crop_width, crop_height = max(1, crop_width), max(1, crop_height)
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _planes(image: Image.Image) -> Tensor:
    """Levels of an RGB image, `(3, H, W)`, uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _draw(generator: torch.Generator) -> float:
    """A uniform random number in [0, 1), at double precision."""
    return torch.rand((), generator=generator, dtype=torch.float64).item()


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * _draw(generator)
