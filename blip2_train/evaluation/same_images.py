"""Which requests are about the same image, so that it is read and encoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput


def same_image(first: ImageInput, second: ImageInput) -> bool:
    """Whether two inputs are one object, the same path, or equal pixel values.

    Example:
        >>> from pathlib import Path
        >>> same_image("a.jpg", Path("a.jpg")), same_image("a.jpg", "b.jpg")
        (True, False)
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first is second or (first.device == second.device and torch.equal(first, second))
    if isinstance(first, str | os.PathLike) and isinstance(second, str | os.PathLike):
        return os.fspath(first) == os.fspath(second)
    return first is second


def requests_by_image(images: Sequence[ImageInput]) -> list[list[int]]:
    """The indices of each image, in the order of `by_image`; equal ones that follow each other there are one.

    Example:
        >>> requests_by_image(["a.jpg", "b.jpg", "a.jpg"])
        [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for index in by_image(images):
        if groups and same_image(images[groups[-1][-1]], images[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def by_image(images: Sequence[ImageInput]) -> list[int]:
    """All indices, those of one object or path together, in the order in which each first occurs.

    Example:
        >>> by_image(["a.jpg", "b.jpg", "a.jpg"])
        [0, 2, 1]
    """
    groups: dict[str | int, list[int]] = {}
    for index, image in enumerate(images):
        key = os.fspath(image) if isinstance(image, str | os.PathLike) else id(image)
        groups.setdefault(key, []).append(index)
    return [index for group in groups.values() for index in group]
