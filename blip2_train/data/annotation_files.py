"""Pictures with captions from annotation files of every layout that is known, found out from name and content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blip2_train.data.annotation_rows import EXPECTED, Rows, read_content
from blip2_train.errors import ShardError

PICTURE_COLUMNS, CAPTION_COLUMNS = ("image", "filepath", "file_name"), ("caption", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPicture:
    """One picture of an annotation file."""

    row: str
    """Where it stands in the file, for messages: `line 12`, `entry 3`."""
    path: str
    """As written: absolute, or below the folder of the pictures."""
    captions: tuple[str, ...]
    """As written; may be none."""
    image_id: int | str | None
    """As written."""
    split: str | None


def read_annotations(
    file: Path, split: str | None, picture_column: str | None = None, caption_column: str | None = None
) -> list[AnnotatedPicture]:
    """The pictures of one split of a file, each once, with all its captions.

    Rows of a CSV, JSON Lines or list file that name the same picture are put together.

    Args:
        file: `.csv`, `.tsv`, `.jsonl`, or `.json` (lines, a list, COCO captions, Karpathy's splits, or the regions of
            Visual Genome).
        split: Which pictures, several joined by `+`; None for files without splits.
        picture_column: Column or key of the picture's path in rows; None = `image`, `filepath` or `file_name`.
        caption_column: Column or key of the caption, or list of captions; None = `caption` or `text`.

    Raises:
        ShardError: naming the file, the row and what to do.
    """
    content = read_content(file)
    if isinstance(content, dict):
        pictures = _coco(file, content) if "annotations" in content else _karpathy(file, content)
    elif content and "regions" in content[0][1]:
        pictures = list(_regions(file, content))
    else:
        pictures = _together(file, _records(file, content, picture_column, caption_column))
    pictures = _of_split(file, pictures, split)
    _refuse_shared_ids(file, pictures)
    return pictures


def _records(
    file: Path, rows: Rows, picture_column: str | None, caption_column: str | None
) -> Iterator[AnnotatedPicture]:
    if not rows:
        raise ShardError(f"{file} has no rows; expected one per caption, with a picture and a caption")
    columns = list(rows[0][1])
    picture = _column(file, columns, picture_column, PICTURE_COLUMNS, "picture_column")
    caption = _column(file, columns, caption_column, CAPTION_COLUMNS, "caption_column")
    for where, values in rows:
        path, words = values.get(picture), values.get(caption)
        if not isinstance(path, str) or not path.strip():
            raise ShardError(f"{file}, {where}: {picture} is {path!r}; write the picture's path, or remove the row")
        captions = words if isinstance(words, list) else [] if words is None else [words]
        if not all(isinstance(text, str) for text in captions):
            raise ShardError(f"{file}, {where}: {caption} is {str(words)[:60]}; write a text, or a list of texts")
        split = values.get("split")
        image_id = values.get("image_id")
        yield AnnotatedPicture(row=where, path=path.strip(), captions=tuple(captions), image_id=image_id, split=split)


def _column(file: Path, columns: Sequence[str], named: str | None, usual: Sequence[str], option: str) -> str:
    found = next((name for name in ([named] if named else usual) if name in columns), None)
    if found is None and "qas" in columns:
        raise ShardError(f"{file} holds Visual Genome's questions; its captions are in region_descriptions.json")
    if found is None:
        wanted = repr(named) if named else " or ".join(map(repr, usual))
        raise ShardError(
            f"{file} has no column {wanted}; its columns are {', '.join(map(repr, columns))}: rename one, or pass "
            f"data.{option}=<column>"
        )
    return found


def _together(file: Path, rows: Iterator[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """One entry per picture and split, with the captions of all its rows."""
    pictures: dict[tuple[str, str | None], AnnotatedPicture] = {}
    for row in rows:
        first = pictures.setdefault((row.path, row.split), row)
        if row is first:
            continue
        if row.image_id != first.image_id:
            raise ShardError(
                f"{file}, {row.row}: {row.path} has image_id {row.image_id!r}, but {first.image_id!r} on {first.row}; "
                "give a picture one image_id"
            )
        pictures[row.path, row.split] = replace(first, captions=first.captions + row.captions)
    return list(pictures.values())


def _karpathy(file: Path, content: Mapping[str, Any]) -> list[AnnotatedPicture]:
    try:
        return [
            AnnotatedPicture(
                row=f"entry {number} of images",
                path="/".join(part for part in (str(entry.get("filepath", "")), entry["filename"]) if part),
                captions=tuple(sentence["raw"] for sentence in entry["sentences"]),
                image_id=entry.get("cocoid"),
                split=entry["split"],
            )
            for number, entry in enumerate(content["images"], 1)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"annotation file {file} is not a Karpathy JSON ({type(error).__name__}: {error}); expected {EXPECTED}"
        ) from None


def _coco(file: Path, content: Mapping[str, Any]) -> list[AnnotatedPicture]:
    captions: dict[Any, list[str]] = {}
    rows: dict[Any, str] = {}
    try:
        for number, entry in enumerate(content["images"], 1):
            if entry["id"] in rows:
                raise ShardError(
                    f"{file}: entry {number} of images has id {entry['id']!r}, as {rows[entry['id']]} has, so that "
                    "their captions cannot be told apart; give each picture its own id"
                )
            rows[entry["id"]], captions[entry["id"]] = f"entry {number} of images", []
        for number, annotation in enumerate(content["annotations"], 1):
            if annotation["image_id"] not in captions:
                raise ShardError(
                    f"{file}: entry {number} of annotations is for image_id {annotation['image_id']!r}, which is not "
                    "in images; remove it, or add the picture"
                )
            captions[annotation["image_id"]].append(annotation["caption"])
        return [
            AnnotatedPicture(
                row=rows[entry["id"]],
                path=entry["file_name"],
                captions=tuple(captions[entry["id"]]),
                image_id=entry["id"],
                split=None,
            )
            for entry in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise ShardError(
            f"{file} has no COCO captions ({type(error).__name__}: {error}); give a captions_*.json, not instances or "
            "questions"
        ) from None


def _regions(file: Path, rows: Rows) -> Iterator[AnnotatedPicture]:
    """Visual Genome's `region_descriptions.json`: every phrase about a part of a picture is a caption of the whole."""
    for where, values in rows:
        try:
            number, phrases = values["id"], tuple(region["phrase"] for region in values["regions"])
            about = next((region["image_id"] for region in values["regions"] if region["image_id"] != number), number)
        except (KeyError, TypeError) as error:
            raise ShardError(
                f"{file}, {where}: no region descriptions of Visual Genome ({type(error).__name__}: {error}); take "
                'the official file, [{"id": …, "regions": [{"image_id": …, "phrase": …}]}]'
            ) from None
        if about != number or not all(isinstance(phrase, str) for phrase in phrases):
            told = f"a region of picture {about}" if about != number else "a phrase that is no text"
            raise ShardError(f"{file}, {where}: picture {number} has {told}; get the official file again")
        # Its numbers are not those of COCO: without a name in front, two pictures of a mixture would count as one.
        known = f"visual_genome_{number}"
        yield AnnotatedPicture(row=where, path=f"{number}.jpg", captions=phrases, image_id=known, split=None)


def _of_split(file: Path, pictures: list[AnnotatedPicture], split: str | None) -> list[AnnotatedPicture]:
    found = sorted({str(picture.split) for picture in pictures if picture.split is not None})
    if split is None:
        if found:
            raise ShardError(f"{file} has the splits {', '.join(found)}: choose with split, several joined by +")
        return pictures
    if not found:
        raise ShardError(f"{file} has no splits: leave split {split!r} out")
    wanted = split.split("+")
    if lacking := [part for part in wanted if part not in found]:
        raise ShardError(f"{file} has no picture of split {'+'.join(lacking)!r}; its splits are {', '.join(found)}")
    return [picture for picture in pictures if picture.split in wanted]


def _refuse_shared_ids(file: Path, pictures: Sequence[AnnotatedPicture]) -> None:
    known: dict[object, AnnotatedPicture] = {}
    for picture in pictures:
        if picture.image_id in (None, ""):
            continue
        first = known.setdefault(picture.image_id, picture)
        if first is not picture:
            raise ShardError(
                f"{file}, {picture.row}: image_id {picture.image_id!r} of {picture.path} is that of {first.path} "
                f"({first.row}); give each picture its own, or leave image_id out"
            )
