"""Images with captions in the rows of tables, of JSON lines and of JSON lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.annotations.columns import CAPTIONS, DOWNLOAD, IMAGES, Columns, find_column, is_address, listed
from blip2_train.data.annotations.entry import Entry, short_repr
from blip2_train.data.annotations.parquet_rows import EMBEDDED
from blip2_train.data.annotations.rows import Rows, Values
from blip2_train.errors import ShardError

ROWS = '[{"image": …, "caption": …}]'
_COCO_ID = re.compile(r"coco_([0-9]{1,18})")


class CaptionRows:
    """Rows of a file as entries of images.

    Args:
        file: for messages.
        rows: rows of the file.
        columns: chosen columns.
        strict: see `Entry`; it also determines whether messages name options without `data.`.

    Raises:
        ShardError: if there is no row, or no column of an image or a caption.
    """

    def __init__(self, file: Path, rows: Rows, columns: Columns, *, strict: bool) -> None:
        self._file, self._rows, self._strict = file, rows, strict
        there = next(([*values] for _, _, values in rows), [])
        if not there:
            raise ShardError(f"{file} has no rows; expected one per caption, with an image and a caption")
        if columns.image is None and columns.caption is None:
            self._refuse_others(there)
        prefix = "" if strict else "data."
        self._image = find_column(file, there, columns.image, IMAGES, f"{prefix}picture_column")
        self._caption = find_column(file, there, columns.caption, CAPTIONS, f"{prefix}caption_column")
        self._id = "image_id" if columns.id is None else find_column(file, there, columns.id, (), f"{prefix}id_column")

    def __iter__(self) -> Iterator[tuple[int, int, AnnotatedImage]]:
        return ((offset, row_number, self._entry(row_number, values)) for offset, row_number, values in self._rows)

    def read(self, offset: int, row_number: int) -> AnnotatedImage:
        """The row at an offset; its row number is used in messages."""
        return self._entry(row_number, self._rows.read(offset))

    def _entry(self, row_number: int, values: Values) -> AnnotatedImage:
        entry = Entry(self._file, f"{self._rows.unit} {row_number}", values, self._strict, ROWS)
        path = values.get(self._image)
        if path == EMBEDDED:
            raise ShardError(
                f"{self._file}, {entry.where}: {self._image} holds the image itself; make tar shards of the file "
                f"first (python scripts/make_shards.py source={self._file} output=<folder>)"
            )
        if not isinstance(path, str) or not path.strip():
            raise entry.fault(f"{self._image} is {short_repr(path)}; write the image's path, or remove the row")
        if is_address(path.strip()):
            address = path.split()[0][:60]
            raise ShardError(f"{self._file}, {entry.where}: {self._image} is the address {address}: {DOWNLOAD}")
        known = values.get(self._id)
        return AnnotatedImage(
            row=entry.where,
            path=path.strip(),
            captions=entry.texts(self._caption) if self._strict or self._caption in values else (),
            image_id=None if known in (None, "") else _official(entry.identity(self._id)),
            split=None if values.get("split") in (None, "") else str(entry.identity("split")),
        )

    def _refuse_others(self, there: Sequence[str]) -> None:
        """Refuse files of other kinds, with their kind in the message."""
        if "qas" in there:
            raise ShardError(
                f"{self._file} holds Visual Genome's questions; its captions are in region_descriptions.json"
            )
        if "caption" in there and "image_id" in there and not {*IMAGES} & {*there} and self._strict:
            raise ShardError(
                f"{self._file} is a list of predictions, not of annotations; are predictions and annotations exchanged?"
            )
        if "caption" not in there and {"question", "question_id"} & {*there}:
            raise ShardError(
                f"{self._file} holds questions, not captions: read it as questions (data=questions), or choose the "
                f"column of the captions (caption_column) among {listed(there)}"
            )


def _official(image_id: int | str) -> int | str:
    """The number in the ids of the released code's lists, such as `coco_522418`."""
    match = _COCO_ID.fullmatch(image_id) if isinstance(image_id, str) else None
    return image_id if match is None else int(match[1])
