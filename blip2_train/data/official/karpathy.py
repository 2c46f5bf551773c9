"""Reads Karpathy's `dataset_coco.json` and `dataset_flickr30k.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_train.data.official.pictures import CaptionedPicture, image_number, naming, read_json, unique
from blip2_train.errors import ShardError

FORM = '{"images": [{"filename": …, "split": …, "sentences": [{"raw": …}]}]}'
SPLITS = ("train", "restval", "val", "test")


def read_karpathy(path: str | Path, split: str) -> list[CaptionedPicture]:
    """The pictures of a split, in the order of the file, with all their captions.

    Args:
        path: The file.
        split: `train`, `val`, `test`, or several joined by `+`: COCO's training set is `train+restval`, everything
            `train+restval+val+test`.

    Raises:
        ShardError: if the file cannot be read or has another format, a picture comes twice, or a split is empty.
    """
    found = []
    for number, entry in enumerate(karpathy_entries(path, split)):
        with naming(path, number, FORM):
            place = picture_path(entry)
            found.append(
                CaptionedPicture(
                    image_id=int(entry["cocoid"]) if "cocoid" in entry else image_number(place),
                    path=place,
                    captions=tuple(sentence["raw"] for sentence in entry["sentences"]),
                    split=entry["split"],
                )
            )
    return unique(path, found)


def karpathy_entries(path: str | Path, split: str) -> list[dict[str, Any]]:
    """The entries of a split as they are in the file, each known to have a name, a split and sentences.

    Raises:
        ShardError: if the file cannot be read, has another format, or has no picture of one of the splits.
    """
    content, wanted = read_json(path, FORM), frozenset(split.split("+"))
    try:
        entries = content["images"]
        chosen = [entry for entry in entries if entry["split"] in wanted]
        for entry in chosen:
            _ = entry["filename"], [sentence["raw"] for sentence in entry["sentences"]]
    except (LookupError, TypeError) as error:
        raise ShardError(
            f"annotation file {path} is not a Karpathy JSON ({type(error).__name__}: {error}); expected {FORM}"
        ) from None
    found = {str(entry["split"]) for entry in entries}
    if lacking := sorted(wanted - found):
        raise ShardError(
            f"{path} has no picture of split {'+'.join(lacking)!r}; its splits are {', '.join(sorted(found))}"
        )
    return chosen


def picture_path(entry: dict[str, Any]) -> str:
    """Where an entry's picture lies below the folder of the pictures."""
    return "/".join(part for part in (str(entry.get("filepath", "")), entry["filename"]) if part)
