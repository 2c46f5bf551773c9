"""Pictures with captions from annotation files of every layout that is known, found out from name and content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2_train.data.annotated_pictures import AnnotatedPicture, AnnotatedPictures, ListedPictures
from blip2_train.data.annotation_rows import (
    DOWNLOAD,
    EXPECTED,
    Rows,
    Values,
    is_address,
    lists_addresses,
    read_content,
)
from blip2_train.errors import ShardError

PICTURE_COLUMNS, CAPTION_COLUMNS = ("image", "filepath", "file_name"), ("caption", "text")


def read_annotations(
    file: Path, split: str | None, picture_column: str | None = None, caption_column: str | None = None
) -> AnnotatedPictures:
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
        listed = _coco(file, content) if "annotations" in content else _karpathy(file, content)
        return AnnotatedPictures(file, ListedPictures(listed), split, together=False)
    first = next(iter(content), None)
    if first is not None and "regions" in first[2]:
        return AnnotatedPictures(file, ListedPictures(list(_regions(file, content))), split, together=False)
    columns = [] if first is None else list(first[2])
    rows = _RowEntries(file, content, columns, picture_column, caption_column)
    return AnnotatedPictures(file, rows, split, together=True)


class _RowEntries:
    """Rows of a file as what they say of pictures."""

    def __init__(
        self, file: Path, rows: Rows, columns: Sequence[str], picture_column: str | None, caption_column: str | None
    ) -> None:
        if not columns:
            raise ShardError(f"{file} has no rows; expected one per caption, with a picture and a caption")
        self._file, self._rows = file, rows
        self._picture = _column(file, columns, picture_column, PICTURE_COLUMNS, "picture_column")
        self._caption = _column(file, columns, caption_column, CAPTION_COLUMNS, "caption_column")

    def __iter__(self) -> Iterator[tuple[int, int, AnnotatedPicture]]:
        return ((place, number, self._entry(number, values)) for place, number, values in self._rows)

    def read(self, place: int, number: int) -> AnnotatedPicture:
        """What the row says that stands there and has this number."""
        return self._entry(number, self._rows.read(place))

    def _entry(self, number: int, values: Values) -> AnnotatedPicture:
        where = f"{self._rows.unit} {number}"
        path, words = values.get(self._picture), values.get(self._caption)
        if not isinstance(path, str) or not path.strip():
            raise ShardError(
                f"{self._file}, {where}: {self._picture} is {path!r}; write the picture's path, or remove the row"
            )
        if is_address(path):
            raise ShardError(f"{self._file}, {where}: {self._picture} is the address {path[:60]}: {DOWNLOAD}")
        captions = words if isinstance(words, list) else [] if words is None else [words]
        if not all(isinstance(text, str) for text in captions):
            raise ShardError(
                f"{self._file}, {where}: {self._caption} is {str(words)[:60]}; write a text, or a list of texts"
            )
        return AnnotatedPicture(
            row=where,
            path=path.strip(),
            captions=tuple(captions),
            image_id=values.get("image_id"),
            split=values.get("split"),
        )


def _column(file: Path, columns: Sequence[str], named: str | None, usual: Sequence[str], option: str) -> str:
    found = next((name for name in ([named] if named else usual) if name in columns), None)
    if found is None and "qas" in columns:
        raise ShardError(f"{file} holds Visual Genome's questions; its captions are in region_descriptions.json")
    if found is None and named is None and lists_addresses(columns):
        raise ShardError(f"{file} lists addresses of pictures: {DOWNLOAD}")
    if found is None:
        wanted = repr(named) if named else " or ".join(map(repr, usual))
        raise ShardError(
            f"{file} has no column {wanted}; its columns are {', '.join(map(repr, columns))}: rename one, or pass "
            f"data.{option}=<column>"
        )
    return found


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
    for _, entry, values in rows:
        where = f"{rows.unit} {entry}"
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
