"""Captions in the layout of Karpathy's `dataset_coco.json` and `dataset_flickr30k.json`, and of RSICD and UCM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blip2_train.data.annotations.entry import Entry
from blip2_train.data.annotations.rows import ListRows
from blip2_train.data.sources.annotated_images import AnnotatedImage

_OWN = {"sentences", "filename", "filepath", "cocoid", "split"}
KARPATHY = '{"images": [{"filename": …, "split": …, "sentences": [{"raw": …}]}]}'


def is_karpathy(content: Mapping[str, Any]) -> bool:
    """Whether the images of a JSON object are in this layout, or in COCO's."""
    first = next(iter(content["images"]), None)
    return "annotations" not in content and isinstance(first, dict) and not _OWN.isdisjoint(first)


def karpathy_images(file: Path, content: Mapping[str, Any], *, strict: bool) -> Iterator[AnnotatedImage]:
    """The images in the order of the file, each with its sentences.

    An image is called by its `cocoid`; without one by its `imgid`, which counts the images of the file.

    Raises:
        ShardError: naming the file, the entry and the field.
    """
    for _, number, values in ListRows(file, content["images"]):
        entry = Entry(file, f"entry {number} of images", values, strict, "a Karpathy JSON, " + KARPATHY)
        known = next((name for name in ("cocoid", "imgid") if values.get(name) is not None), None)
        folder = "" if values.get("filepath") is None else entry.text("filepath")
        yield AnnotatedImage(
            row=entry.where,
            path="/".join(part for part in (folder, entry.name("filename")) if part),
            captions=tuple(sentence.text("raw") for sentence in entry.entries("sentences")),
            image_id=None if known is None else entry.identity(known),
            split=None if values.get("split") is None else entry.name("split"),
            counted=known == "imgid",
        )
