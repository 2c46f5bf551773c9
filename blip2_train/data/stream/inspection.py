"""Inspects samples as stored in the data: which are usable, and which show the same image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from blip2_train.data.printable_names import printable_name
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.source import CaptionSource
from blip2_train.data.stream.stream import dropped_captions, rejection, usable_captions
from blip2_train.types import ImageTextSample, RejectedSample

_EMPTY = torch.zeros(3, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenImage:
    """An image that can be used."""

    index: int
    """In its source."""
    where: str
    """File and row or key, for messages."""
    image_id: int
    content: bytes
    """Hash of its file."""
    texts: tuple[ImageTextSample, ...]
    """One per caption that is not empty, as a collator takes it, with an empty image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Result of inspecting the samples of one source for one use."""

    source: str
    use: str
    """`training`, `held out` or `validation`."""
    samples: int
    """Number of all samples of this use."""
    images: tuple[SeenImage, ...]
    """Inspected images that can be used."""
    broken: tuple[RejectedSample, ...]
    """Inspected samples that cannot be used."""
    left_out: tuple[RejectedSample, ...] = ()
    """Captions that cannot be used, of images that can."""

    @property
    def texts(self) -> list[ImageTextSample]:
        """A sample for each caption of the images that can be used."""
        return [text for image in self.images for text in image.texts]

    @property
    def looked_at(self) -> int:
        """Samples that were read."""
        return len(self.images) + len(self.broken)


def inspect_samples(source: CaptionSource, use: str, samples: int, indices: Iterable[int]) -> Inspection:
    """Read and decode samples.

    Args:
        source: The source.
        use: `training`, `held out` or `validation`.
        samples: Number of the source's samples of this use.
        indices: Indices of the samples to inspect.
    """
    seen: list[SeenImage] = []
    broken: list[RejectedSample] = []
    without: list[RejectedSample] = []
    for index in indices:
        try:
            record = source.read(index)
            about: dict[str, Any] = {"pixel_values": _EMPTY, "image_id": record.image_id, "sample_id": ""}
            texts = tuple(record.sample(caption=text, **about) for _, text in usable_captions(record, record.captions))
            record.decoded()
        except UnusableSample as problem:
            broken.append(rejection(source, index, problem))
            continue
        without += dropped_captions(source, index, record.captions)
        location = source.sample_location(index)
        content = hashlib.blake2b(record.image, digest_size=16).digest()
        where = printable_name(f"{location.file}, {location.row or location.key}")
        seen.append(SeenImage(index=index, where=where, image_id=record.image_id, content=content, texts=texts))
    return Inspection(
        source=source.name,
        use=use,
        samples=samples,
        images=tuple(seen),
        broken=tuple(broken),
        left_out=tuple(without),
    )


def copies(parts: Sequence[Inspection]) -> list[tuple[tuple[Inspection, SeenImage], ...]]:
    """Images with the same content that count as different ones, or that are trained on and validated on.

    Returns:
        Each group of equal images, in the order of inspection.
    """
    groups: dict[bytes, list[tuple[Inspection, SeenImage]]] = {}
    for part in parts:
        for image in part.images:
            groups.setdefault(image.content, []).append((part, image))
    return [
        tuple(group) for group in groups.values() if len({image.image_id for _, image in group}) > 1 or leaks(group)
    ]


def leaks(group: Sequence[tuple[Inspection, SeenImage]]) -> bool:
    """Whether one of a group of equal images is trained on, and another is not."""
    return len({part.use == "training" for part, _ in group}) > 1
