"""Checks of official files against each other and the images on disk, and of predictions against references."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.errors import ConfigError, ShardError


def paths_by_id(images: Iterable[AnnotatedImage]) -> dict[int | str, str]:
    """Paths of images by identity, as input of the checks."""
    return {image.identity: image.path for image in images}


def check_no_leak(
    train: Collection[Hashable], held_out: Mapping[int | str, str], *, train_file: object, held_out_file: object
) -> None:
    """Refuse two sets with common ids, for instance of COCO, that share images.

    Args:
        train: Ids of the images to train on.
        held_out: Paths of the images to test on, by id.
        train_file: For messages.
        held_out_file: For messages.

    Raises:
        ShardError: with the first images that are in both.
    """
    seen = set(train)
    if both := [image_id for image_id in held_out if image_id in seen]:
        raise ShardError(
            f"{len(both)} of the {len(held_out)} images of {held_out_file} are in {train_file} too (first: "
            f"{_first(both, held_out)}); a model trained on the one must not be tested on the other"
        )


def check_split(images: Mapping[int | str, str], expected: Collection[int | str], *, file: object, split: str) -> None:
    """Refuse images that are not exactly those of a split.

    Args:
        images: Paths of the images that the file holds, by id.
        expected: Ids of the split's images.
        file: For messages.
        split: For messages: `test of dataset_coco.json`.

    Raises:
        ShardError: with the first images of another split, or the first missing ones.
    """
    known = set(expected)
    if foreign := [image_id for image_id in images if image_id not in known]:
        raise ShardError(
            f"{file} is of another split: {len(foreign)} of its {len(images)} images are not in {split} (first: "
            f"{_first(foreign, images)}); take the file of that split"
        )
    if lacking := [image_id for image_id in expected if image_id not in images]:
        raise ShardError(
            f"{file} lacks {len(lacking)} of the {len(known)} images of {split} (first: "
            f"{', '.join(map(str, lacking[:3]))}); get the whole file"
        )


def missing_images(paths: Iterable[str], folder: str | Path) -> list[str]:
    """Those of the paths below `folder` that do not exist; each folder is listed once only.

    Raises:
        ShardError: if `folder` does not exist.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ShardError(f"image folder {folder} does not exist; put the images there")
    there: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        parent, _, name = path.rpartition("/")
        if parent not in there:
            there[parent] = set(os.listdir(root / parent)) if (root / parent).is_dir() else set()
        if name not in there[parent]:
            missing.append(path)
    return missing


def _first(ids: list[int | str], paths: Mapping[int | str, str]) -> str:
    return ", ".join(f"{image_id} {paths[image_id]}".strip() for image_id in ids[:3])


def check_identities(
    predicted: Collection[Hashable],
    known: Collection[Hashable],
    *,
    thing: str = "image",
    prediction: str = "caption",
    reference: str = "references",
) -> None:
    """Refuse predictions with missing ids, extra ids, or the ids of another set.

    Args:
        predicted: Ids of the predictions; look-ups in it must be fast, as in a set or a dictionary.
        known: Ids of the references, likewise.
        thing: Noun for what an id identifies.
        prediction: Noun for a prediction.
        reference: Noun for a reference.

    Raises:
        ConfigError: with the first missing and the first extra ids.
    """
    missing = [key for key in known if key not in predicted]
    extra = [key for key in predicted if key not in known]
    if not missing and not extra:
        return
    article = "an" if prediction[0] in "aeiou" else "a"
    faults = [
        f"{len(keys)} {thing}s have {what} (first: {', '.join(map(repr, keys[:3]))})"
        for keys, what in (
            (missing, f"{reference} but no {prediction}"),
            (extra, f"{article} {prediction} but no {reference.removeprefix('a ')}"),
        )
        if keys
    ]
    summary = " and ".join(faults)
    if extra and len(missing) == len(known):
        advice = "the two have no id in common, so they are of different sets or splits; take the files of one"
        if {str(key) for key in missing} & {str(key) for key in extra}:
            advice = "the ids are numbers on one side, text on the other; write them as the references do"
        raise ConfigError(f"{summary}; {advice}")
    raise ConfigError(f"{summary}; predict for every {thing} of the annotation file, and for no other")
