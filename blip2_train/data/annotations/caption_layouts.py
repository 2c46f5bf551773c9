"""Images with captions in the JSON layouts of COCO, Karpathy's splits and Visual Genome's regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.annotations.entry import Entry, short_repr
from blip2_train.data.annotations.rows import ListRows, Rows
from blip2_train.errors import ShardError

COCO = '{"images": [{"id": …, "file_name": …}], "annotations": [{"image_id": …, "caption": …}]}'
DOMAINS = ("in-domain", "near-domain", "out-domain")


def coco_images(file: Path, content: Mapping[str, Any], *, strict: bool) -> list[AnnotatedImage]:
    """The images in the order of `images`, each with its captions.

    Args:
        file: for messages.
        content: content of the file.
        strict: refuse images without a caption and captions with the same id. Only then, a file of images alone (as
            NoCaps' test split) and one without file names (for scoring) are accepted; training accepts neither.

    Raises:
        ShardError: with the file, the entry and the field.
    """
    entries: dict[int | str, Entry] = {}
    captions: dict[int | str, list[str]] = {}
    for entry in _entries(file, content, "images", strict):
        identity = entry.identity("id")
        if identity in entries:
            raise ShardError(
                f"{file}: {entry.where} has id {short_repr(identity)}, as {entries[identity].where} has, so that their "
                "captions cannot be told apart; give each image its own id"
            )
        entries[identity], captions[identity] = entry, []
    if "annotations" in content or not strict:
        _add_captions(file, content, captions, strict)
    images = [_image(entry, identity, tuple(captions[identity]), strict) for identity, entry in entries.items()]
    bare = [image.image_id for image in images if not image.domain]
    if 0 < len(bare) < len(images):
        raise ShardError(
            f"{file}: {len(bare)} of {len(images)} images have no domain (first: {short_repr(bare[0])}); get the file "
            "again, all or none of them should have one"
        )
    return images


def _add_captions(
    file: Path, content: Mapping[str, Any], captions: Mapping[int | str, list[str]], strict: bool
) -> None:
    seen = set()
    for entry in _entries(file, content, "annotations", strict):
        image = entry.identity("image_id")
        if image not in captions:
            raise ShardError(
                f"{file}: {entry.where} is for image_id {short_repr(image)}, which is not in images; remove it, or add "
                "the image"
            )
        if strict and "id" in entry.values:
            identity = entry.identity("id")
            if identity in seen:
                raise ShardError(
                    f"{file}: caption id {short_repr(identity)} comes twice; remove one of the two entries"
                )
            seen.add(identity)
        if "caption" not in entry.values:
            raise entry.fault("lacks 'caption', so these are no COCO captions; give captions_*.json, not instances")
        captions[image].append(entry.text("caption"))
    if strict and (bare := [image for image, texts in captions.items() if not texts]):
        raise ShardError(
            f"{file}: {len(bare)} images have no caption (first: {', '.join(map(short_repr, bare[:3]))}); get the "
            "whole file"
        )


def _entries(file: Path, content: Mapping[str, Any], key: str, strict: bool) -> list[Entry]:
    listed = content.get(key)
    if not isinstance(listed, list) or not listed:
        raise ShardError(f"{file} has no {key}, so it is not of the form {COCO}; take the official file")
    return [
        Entry(file, f"entry {row_number} of {key}", values, strict, COCO)
        for _, row_number, values in ListRows(file, listed)
    ]


def _image(entry: Entry, identity: int | str, captions: tuple[str, ...], strict: bool) -> AnnotatedImage:
    domain = entry.values.get("domain") or ""
    if domain and domain not in DOMAINS:
        raise entry.fault(f"domain {short_repr(domain)} is none of {', '.join(DOMAINS)}")
    nameless = strict and entry.values.get("file_name") is None
    return AnnotatedImage(
        row=entry.where,
        path="" if nameless else entry.name("file_name"),
        captions=captions,
        image_id=identity,
        domain=domain,
    )


_OWN = {"sentences", "filename", "filepath", "cocoid", "split"}
KARPATHY = '{"images": [{"filename": …, "split": …, "sentences": [{"raw": …}]}]}'


def is_karpathy(content: Mapping[str, Any]) -> bool:
    """Whether the images of a JSON object are in Karpathy's layout, and not in COCO's."""
    first = next(iter(content["images"]), None)
    return "annotations" not in content and isinstance(first, dict) and not _OWN.isdisjoint(first)


def karpathy_images(file: Path, content: Mapping[str, Any], *, strict: bool) -> Iterator[AnnotatedImage]:
    """The images in the order of the file, each with its sentences.

    The identity of an image is its `cocoid`; without one its `imgid`, which counts the images of the file.

    Raises:
        ShardError: with the file, the entry and the field.
    """
    for _, row_number, values in ListRows(file, content["images"]):
        entry = Entry(file, f"entry {row_number} of images", values, strict, "a Karpathy JSON, " + KARPATHY)
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


REGIONS = 'Visual Genome\'s [{"id": …, "regions": [{"image_id": …, "phrase": …}]}]'


def region_images(file: Path, rows: Rows, *, strict: bool) -> Iterator[AnnotatedImage]:
    """The images in the order of the file.

    Raises:
        ShardError: with the file, the entry and the field.
    """
    for _, row_number, values in rows:
        entry = Entry(file, f"{rows.unit} {row_number}", values, strict, REGIONS)
        image = entry.identity("id")
        phrases = []
        for region in entry.entries("regions"):
            about = image if "image_id" not in region.values else region.identity("image_id")
            if about != image:
                raise ShardError(
                    f"{file}, {entry.where}: image {short_repr(image)} has a region of image {short_repr(about)}; get "
                    "the official file again"
                )
            phrases.append(region.text("phrase"))
        # Its ids are not those of COCO: without the prefix, two images of a mixture would count as one.
        yield AnnotatedImage(
            row=entry.where, path=f"{image}.jpg", captions=tuple(phrases), image_id=f"visual_genome_{image}"
        )
