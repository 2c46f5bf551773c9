"""Reads caption annotations in COCO's format: COCO's own, those of Karpathy's splits, NoCaps'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_train.data.official.pictures import CaptionedPicture, naming, read_json, unique
from blip2_train.errors import ShardError

FORM = '{"images": [{"id": …}], "annotations": [{"id": …, "image_id": …, "caption": …}]}'
DOMAINS = ("in-domain", "near-domain", "out-domain")


def read_coco_captions(path: str | Path) -> list[CaptionedPicture]:
    """The pictures of `captions_*.json`, `coco_karpathy_*_gt.json` or `nocaps_val_4500_captions.json`.

    Raises:
        ShardError: if the file cannot be read or has another format, an id comes twice, a caption is of a picture that
            is not there, a picture has no caption, or only some pictures have a domain.
    """
    content = _content(path)
    pictures = _pictures(path, content)
    captions: dict[int, list[str]] = {picture.image_id: [] for picture in pictures}
    seen = set()
    for number, entry in enumerate(_entries(path, content, "annotations")):
        with naming(path, number, FORM):
            if entry["id"] in seen:
                raise ShardError(f"{path}: caption id {entry['id']} comes twice; remove one of the two entries")
            if not isinstance(entry["caption"], str):
                raise TypeError(f"{entry['caption']!r} is no text")
            if entry["image_id"] not in captions:
                raise ShardError(
                    f"{path}: caption {entry['id']} is of picture {entry['image_id']}, which is not among its images; "
                    "get the whole file"
                )
            seen.add(entry["id"])
            captions[entry["image_id"]].append(entry["caption"])
    if bare := [image_id for image_id, texts in captions.items() if not texts]:
        raise ShardError(
            f"{path}: {len(bare)} pictures have no caption (first: {', '.join(map(str, bare[:3]))}); get the whole file"
        )
    return [_with(picture, tuple(captions[picture.image_id])) for picture in pictures]


def read_nocaps_pictures(path: str | Path) -> list[CaptionedPicture]:
    """The pictures of `nocaps_val_image_info.json` or `nocaps_test_image_info.json`, whose captions are not published.

    Raises:
        ShardError: if the file cannot be read or has another format, or an id comes twice.
    """
    return _pictures(path, _content(path))


def _content(path: str | Path) -> dict[str, Any]:
    content = read_json(path, FORM)
    if isinstance(content, list):
        first = content[0]
        if isinstance(first, dict) and {"image_id", "caption"} <= first.keys():
            raise ShardError(
                f"{path} is a list of predictions, not of annotations; are predictions and annotations exchanged?"
            )
        raise ShardError(f"{path} is not of the form {FORM}; take the official file")
    return content


def _entries(path: str | Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise ShardError(f"{path} has no {key}, so it is not of the form {FORM}; take the official file")
    return entries


def _pictures(path: str | Path, content: dict[str, Any]) -> list[CaptionedPicture]:
    found = []
    for number, entry in enumerate(_entries(path, content, "images")):
        with naming(path, number, FORM):
            if type(entry["id"]) is not int:
                raise TypeError(f"id {entry['id']!r} is no number")
            domain = entry.get("domain") or ""
            if domain and domain not in DOMAINS:
                raise ValueError(f"domain {domain!r} is none of {', '.join(DOMAINS)}")
            place = entry.get("file_name") or ""
            found.append(CaptionedPicture(image_id=entry["id"], path=place, captions=(), domain=domain))
    bare = [picture for picture in found if not picture.domain]
    if 0 < len(bare) < len(found):
        raise ShardError(
            f"{path}: {len(bare)} of {len(found)} pictures have no domain (first: {bare[0].image_id}); get the file "
            "again, all or none of them should have one"
        )
    return unique(path, found)


def _with(picture: CaptionedPicture, captions: tuple[str, ...]) -> CaptionedPicture:
    return CaptionedPicture(image_id=picture.image_id, path=picture.path, captions=captions, domain=picture.domain)
