"""Rows of JSON lines and of JSON lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from blip2_train.data.annotations.entry import short_repr
from blip2_train.data.annotations.json_content import parse_json, read_json_or_lines
from blip2_train.errors import ShardError

_ROW_KEYS = {"image", "image_id", "question_id", "questionId"}
"""Keys of the only object in a file, if the file is JSON lines with one line."""
_OBJECT_KEYS = {"images", "annotations", "questions", "data"}
"""Keys of the only object in a file, if the file is one object."""
Values = Mapping[str, Any]
"""Values of a row, by column or key."""


class Rows(Protocol):
    """The rows of a file, for iteration in order, and for random access by offset."""

    unit: str
    """Noun for a row in messages: `line`, `entry`."""

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        """Offset, row number for messages, and values of each row.

        Raises:
            ShardError: with the file, the row and what to do.
        """
        ...

    def read(self, offset: int) -> Values:
        """The values of the row at an offset."""
        ...


class LineRows:
    """Rows of a file with a JSON object in every line, which stay on the disk.

    Args:
        file: the file; empty lines are skipped.
    """

    unit = "line"

    _header = 0
    """Number of header lines."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        offset = 0
        with self._file.open("rb") as stream:
            for row_number, line in enumerate(stream, 1):
                if line.strip() and row_number > self._header:
                    yield offset, row_number, self._values(line, f"line {row_number}")
                offset += len(line)

    def read(self, offset: int) -> Values:
        """The values of the row at an offset."""
        with self._file.open("rb") as stream:
            stream.seek(offset)
            return self._values(stream.readline(), f"byte {offset}")

    def _values(self, line: bytes, where: str) -> Values:
        try:
            return _object(self._file, where, parse_json(line.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            raise ShardError(f"{self._file}, {where}: no UTF-8 text ({error}); save it as UTF-8") from None
        except ValueError as error:
            raise ShardError(f"{self._file}, {where}: no valid JSON ({error}); write one object per line") from None


class ListRows:
    """Entries of a JSON list.

    Args:
        file: file of the list.
        entries: objects of the list.
        unit: noun for an entry: `entry`, `entry of images`.
    """

    def __init__(self, file: Path, entries: Sequence[Any], unit: str = "entry") -> None:
        self.unit = unit
        self._entries = [_object(file, f"{unit} {row_number}", value) for row_number, value in enumerate(entries, 1)]

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        return ((offset, offset + 1, values) for offset, values in enumerate(self._entries))

    def read(self, offset: int) -> Values:
        """The values of the entry at an index, from 0."""
        return self._entries[offset]


def json_content(file: Path, form: str) -> Rows | dict[str, Any]:
    """Rows of a JSON list or of JSON lines; or the object that a JSON file holds.

    The content determines the format, not the extension `.json` or `.jsonl`.

    Args:
        file: the file.
        form: expected form, for messages.

    Raises:
        ShardError: with the file, the row and what to do.
    """
    if file.suffix.lower() != ".json" and not _starts_as_list(file):
        return LineRows(file)
    content = read_json_or_lines(file, form)
    if content is None:
        return LineRows(file)
    if isinstance(content, dict) and _ROW_KEYS & content.keys() and not _OBJECT_KEYS & content.keys():
        return ListRows(file, [content], "line")
    return ListRows(file, content) if isinstance(content, list) else content


def _starts_as_list(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(64).decode("utf-8-sig", "replace").lstrip().startswith("[")


def _object(file: Path, where: str, value: Any) -> Values:
    if not isinstance(value, dict):
        raise ShardError(f'{file}, {where}: {short_repr(value)} is no object; expected one like {{"image": …}}')
    return value
