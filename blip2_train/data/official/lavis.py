"""Reads the caption lists of the released code of BLIP-2: `coco_karpathy_*.json`, `flickr30k_*.json`."""

from __future__ import annotations

from pathlib import Path

from blip2_train.data.official.pictures import CaptionedPicture, image_number, naming, read_json, unique
from blip2_train.errors import ShardError

FORM = '[{"image": …, "caption": …}]'


def read_caption_list(path: str | Path, split: str) -> list[CaptionedPicture]:
    """The pictures of a list with all their captions, in the order in which they first come.

    Training lists have an entry for each caption, the others one for each picture, with a list of captions. What the
    file calls `image_id` counts differently in each of them and is left aside for the number in the picture's name.

    Args:
        path: The file.
        split: `train`, `val` or `test`.

    Raises:
        ShardError: if the file cannot be read, has another format or is that of another split, or a picture comes twice
            in a list that has one entry for each.
    """
    content = read_json(path, FORM)
    if not isinstance(content, list):
        raise ShardError(f"{path} is not a list of the form {FORM}; take the file of the released code")
    train = split == "train"
    captions: dict[str, list[str]] = {}
    pictures = []
    for number, entry in enumerate(content):
        with naming(path, number, FORM):
            place, told = entry["image"], entry["caption"]
            if isinstance(told, str) != train:
                form = "one caption an entry, as a training list has" if train else "a list of captions an entry"
                raise ShardError(f"{path} is not the list of split {split!r}, which has {form}; take the other file")
            texts = (told,) if train else tuple(told)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"{told!r} is no list of captions")
            if place not in captions or not train:
                pictures.append((image_number(place), place))
            captions.setdefault(place, []).extend(texts)
    named = [(image_id, place, tuple(captions[place])) for image_id, place in pictures]
    return unique(path, (CaptionedPicture(image_id=one, path=place, captions=said) for one, place, said in named))
