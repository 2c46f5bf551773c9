"""Opens whatever a user gives as an image: a path, an address, an image of Pillow, an array, a tensor, bytes, a file.

The kinds are listed in `docs/use.md`. That nothing which is computed from pixel values is of their class is what torch
documents ("Extending PyTorch"), under a private name. Tried with torch 2.14.1.

Shape letters: H height, W width, S pixels per side of a model's input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blip2_train.data.batches.images import decode_image, upright_rgb
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.storage.web import WebLimits, fetch, is_address, shown_address
from blip2_train.errors import ConfigError, ShardError

ImageInput = str | os.PathLike[str] | Image.Image | Tensor | np.ndarray[Any, Any] | bytes | BinaryIO
"""A path or `http(s)://` address, an image of Pillow, an array `(H, W, 3)` or tensor `(3, H, W)`, the content of a file
or an open one, or pixel values `(3, S, S)` that were processed before."""
ImageInputs = ImageInput | Iterable[ImageInput]
TAKEN = (
    "a path, an http(s) address, a PIL image, a NumPy array (H, W, 3) or tensor (3, H, W) of uint8 or of float in "
    "0 … 1, bytes, or a file opened in binary mode"
)
_FILES = (str, os.PathLike)
_CONTENTS = (bytes, bytearray, memoryview)
_FARTHEST = 16.0
"""Pixel values lie within about 2 of 0; a tensor with values beyond this holds something else."""


class PixelValues(Tensor):
    """Pixel values that `Processor.image` made, taken as they are.

    They are known as such after indexing and `to`; everything else that is computed from them is a plain `Tensor`.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(values: Tensor) -> PixelValues:
        """The same values, known as processed."""
        return values.as_subclass(PixelValues)

    def __getitem__(self, index: Any) -> PixelValues:
        return PixelValues.of(super().__getitem__(index))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def to(self, *target: Any, **options: Any) -> PixelValues:
        """The same values elsewhere, or in another precision."""
        return PixelValues.of(super().to(*target, **options))


def listed(images: ImageInputs) -> list[ImageInput]:
    """Images as a list; a single one is a list of one, and an open file is read.

    Raises:
        ConfigError: if it is no image, and nothing that images can be taken from.
    """
    if _is_single(images):
        return [_read(images)]
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise _unknown(images)
    return [_read(image) for image in images]


def content_of(image: object, web: WebLimits | None = None) -> bytes | None:
    """The content of an image's file, if it is given as a file.

    Args:
        image: Anything.
        web: What may be fetched from addresses.

    Returns:
        None if it is no path, address, content or open file.

    Raises:
        ShardError: naming a file that cannot be read.
        ConfigError: if an address is none of the web, or not allowed.
    """
    image = _read(image)
    if isinstance(image, _CONTENTS):
        return bytes(image)
    if not isinstance(image, _FILES):
        return None
    name = os.fspath(image)
    if is_address(name):
        return fetch(name, web)
    path = local_path(name)
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from error


def local_path(name: str) -> Path:
    """A path on this machine; `~/…` is below the user's own folder, any other `~` is part of a name."""
    return Path(name).expanduser() if name == "~" or name.startswith("~/") else Path(name)


def open_image(image: ImageInput, web: WebLimits | None = None) -> Image.Image:
    """An image in mode RGB, turned by its EXIF orientation.

    Args:
        image: Any kind but pixel values that were processed.
        web: What may be fetched from addresses; None = public ones, see `WebLimits`.

    Raises:
        ShardError: naming the file, if it is no readable image.
        ConfigError: if it is nothing of which an image can be made.
    """
    if isinstance(image, Image.Image):
        try:
            image.load()  # Pillow reads a file only when its pixels are needed
            return upright_rgb(image)
        except (OSError, SyntaxError, ValueError, AssertionError) as error:
            raise unreadable(getattr(image, "filename", "") or "the image", str(error)) from error
    if isinstance(image, np.ndarray | Tensor):
        return Image.fromarray(_levels(image))
    content = content_of(image, web)
    if content is None:
        raise _unknown(image)
    try:
        return decode_image(content)
    except UnusableSample as error:
        raise unreadable(name_of(image), f"{error.reason}: {error.detail}") from error


def processed_before(image: object, size: int) -> bool:
    """Whether an image is pixel values `(3, S, S)`, normalised as a model reads them.

    Those of `Processor.image` are known as such. Other tensors of a model's size are pixel values if they are of floats
    that leave 0 … 1, which those of an image do not.

    Args:
        image: Anything.
        size: S of the model.

    Raises:
        ConfigError: if they are of another size.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point() or image.ndim != 3 or len(image) != 3:
        return False
    if not isinstance(image, PixelValues):
        low, high = _range(image)
        if (low >= 0 and high <= 1) or not max(-low, high) <= _FARTHEST:
            return False
    if image.shape != (3, size, size):
        raise ConfigError(
            f"pixel values have shape {tuple(image.shape)}, but this model reads (3, {size}, {size}); give the image "
            "itself, or what Processor.image makes of it"
        )
    return True


def name_of(image: object) -> str:
    """The name of an image for messages: its path, its address, or its kind."""
    if isinstance(image, _FILES):
        name = os.fspath(image)
        return shown_address(name) if is_address(name) else str(local_path(name))
    if isinstance(image, _CONTENTS):
        return f"what is given as {len(image):,} bytes"
    name = getattr(image, "name", "")
    return str(name) if isinstance(name, str | os.PathLike) and name else f"a {type(image).__name__}"


def unreadable(what: str | Path, reason: str) -> ShardError:
    """The error of a file that is no image."""
    reason = " ".join(reason.split())[:150]
    return ShardError(f"{what} is no image that can be read ({reason}); leave it out, or save it again")


def _is_single(images: object) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim in (2, 3)
    return (
        isinstance(images, Image.Image | str | os.PathLike | bytes | bytearray | memoryview)
        or _reader(images) is not None
    )


def _reader(image: object) -> Callable[[], object] | None:
    read = None if isinstance(image, Image.Image) else getattr(image, "read", None)
    return read if callable(read) else None


def _read(image: Any) -> Any:
    """The content of an open file; everything else as it is."""
    if isinstance(image, _FILES) or (read := _reader(image)) is None:
        return image
    try:
        content = read()
    except (OSError, ValueError) as error:
        raise unreadable(name_of(image), str(error)) from error
    if not isinstance(content, _CONTENTS):
        raise ConfigError(f"{name_of(image)} is read as {type(content).__name__}; open it in binary mode ('rb')")
    if not content:
        raise unreadable(name_of(image), "nothing is left to read")
    return bytes(content)


def _levels(image: np.ndarray[Any, Any] | Tensor) -> np.ndarray[Any, Any]:
    """Levels `(H, W, 3)`, uint8, of an array `(H, W, 3)` or a tensor `(3, H, W)`."""
    values = image.detach().cpu() if isinstance(image, Tensor) else image
    channels = 0 if isinstance(image, Tensor) else -1
    if values.ndim != 3 or values.shape[channels] != 3 or 0 in values.shape:
        raise _unknown(image)
    if isinstance(values, Tensor):
        plane = values.permute(1, 2, 0)
        values = (plane.float() if plane.is_floating_point() else plane).numpy()
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if not np.issubdtype(values.dtype, np.floating) or not (values.min() >= 0 and values.max() <= 1):
        raise _unknown(image)
    levels: np.ndarray[Any, Any] = np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    return levels


def _range(image: Tensor) -> tuple[float, float]:
    values = image.detach()
    return (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)


def _unknown(image: object) -> ConfigError:
    """What was given, with its shape and values if it has them, and what is taken."""
    kind = "None" if image is None else f"a {type(image).__name__}"
    if isinstance(image, np.ndarray | Tensor):
        kind += f" of {str(image.dtype).removeprefix('torch.')}, shape {tuple(image.shape)}"
        with np.errstate(all="ignore"):
            if image.dtype not in (object, np.uint8, torch.uint8) and 0 not in image.shape and _is_real(image):
                kind += f", with values {float(image.min()):.4g} … {float(image.max()):.4g}"
    return ConfigError(f"an image is given as {kind}; give {TAKEN}")


def _is_real(image: np.ndarray[Any, Any] | Tensor) -> bool:
    return not image.is_complex() if isinstance(image, Tensor) else image.dtype.kind in "biuf"
