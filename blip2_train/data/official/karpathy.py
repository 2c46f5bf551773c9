"""Reads Karpathy's `dataset_coco.json` and `dataset_flickr30k.json`."""

from __future__ import annotations

from pathlib import Path

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
    pictures = []
    for number, entry in enumerate(chosen):
        with naming(path, number, FORM):
            place = "/".join(part for part in (str(entry.get("filepath", "")), entry["filename"]) if part)
            pictures.append(
                CaptionedPicture(
                    image_id=int(entry["cocoid"]) if "cocoid" in entry else image_number(place),
                    path=place,
                    captions=tuple(sentence["raw"] for sentence in entry["sentences"]),
                    split=entry["split"],
                )
            )
    return unique(path, pictures)
