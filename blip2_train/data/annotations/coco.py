"""Captions in COCO's layout: COCO's own, those of Karpathy's splits, NoCaps', VizWiz', TextCaps'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blip2_train.data.annotations.entry import Entry, shown
from blip2_train.data.annotations.rows import ListRows
from blip2_train.data.sources.annotated_images import AnnotatedImage
from blip2_train.errors import ShardError

COCO = '{"images": [{"id": …, "file_name": …}], "annotations": [{"image_id": …, "caption": …}]}'
DOMAINS = ("in-domain", "near-domain", "out-domain")


def coco_images(file: Path, content: Mapping[str, Any], *, strict: bool) -> list[AnnotatedImage]:
    """The images in the order of `images`, each with its captions.

    Args:
        file: for messages.
        content: what it holds.
        strict: refuse images without a caption and captions with the same id. A file of images alone, as NoCaps' test
            split is published, and without file names, as captions are scored with, is read then; to train, it is not.

    Raises:
        ShardError: naming the file, the entry and the field.
    """
    entries: dict[int | str, Entry] = {}
    captions: dict[int | str, list[str]] = {}
    for entry in _entries(file, content, "images", strict):
        identity = entry.identity("id")
        if identity in entries:
            raise ShardError(
                f"{file}: {entry.where} has id {shown(identity)}, as {entries[identity].where} has, so that their "
                "captions cannot be told apart; give each image its own id"
            )
        entries[identity], captions[identity] = entry, []
    if "annotations" in content or not strict:
        _add_captions(file, content, captions, strict)
    found = [_image(entry, identity, tuple(captions[identity]), strict) for identity, entry in entries.items()]
    bare = [image.image_id for image in found if not image.domain]
    if 0 < len(bare) < len(found):
        raise ShardError(
            f"{file}: {len(bare)} of {len(found)} images have no domain (first: {shown(bare[0])}); get the file "
            "again, all or none of them should have one"
        )
    return found


def _add_captions(
    file: Path, content: Mapping[str, Any], captions: Mapping[int | str, list[str]], strict: bool
) -> None:
    seen = set()
    for entry in _entries(file, content, "annotations", strict):
        image = entry.identity("image_id")
        if image not in captions:
            raise ShardError(
                f"{file}: {entry.where} is for image_id {shown(image)}, which is not in images; remove it, or add the "
                "image"
            )
        if strict and "id" in entry.values:
            identity = entry.identity("id")
            if identity in seen:
                raise ShardError(f"{file}: caption id {shown(identity)} comes twice; remove one of the two entries")
            seen.add(identity)
        if "caption" not in entry.values:
            raise entry.fault("lacks 'caption', so these are no COCO captions; give captions_*.json, not instances")
        captions[image].append(entry.text("caption"))
    if strict and (bare := [image for image, texts in captions.items() if not texts]):
        raise ShardError(
            f"{file}: {len(bare)} images have no caption (first: {', '.join(map(shown, bare[:3]))}); get the whole file"
        )


def _entries(file: Path, content: Mapping[str, Any], key: str, strict: bool) -> list[Entry]:
    listed = content.get(key)
    if not isinstance(listed, list) or not listed:
        raise ShardError(f"{file} has no {key}, so it is not of the form {COCO}; take the official file")
    return [
        Entry(file, f"entry {number} of {key}", values, strict, COCO) for _, number, values in ListRows(file, listed)
    ]


def _image(entry: Entry, identity: int | str, captions: tuple[str, ...], strict: bool) -> AnnotatedImage:
    domain = entry.values.get("domain") or ""
    if domain and domain not in DOMAINS:
        raise entry.fault(f"domain {shown(domain)} is none of {', '.join(DOMAINS)}")
    nameless = strict and entry.values.get("file_name") is None
    return AnnotatedImage(
        row=entry.where,
        path="" if nameless else entry.name("file_name"),
        captions=captions,
        image_id=identity,
        domain=domain,
    )
