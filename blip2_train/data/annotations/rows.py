"""Rows of JSON lines and of JSON lists, and what an annotation file holds by its name and content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from blip2_train.data.annotations.entry import short_repr
from blip2_train.data.annotations.json_content import parse_json, read_json_or_lines
from blip2_train.errors import ShardError

_OF_ROWS = {"image", "image_id", "question_id", "questionId"}
"""Keys of the one object in a file, if it is JSON lines that are one line."""
_OF_WHOLES = {"images", "annotations", "questions", "data"}
"""Keys of it, if it is a whole file."""
Values = Mapping[str, Any]
"""What a row says, by column or key."""


class Rows(Protocol):
    """The rows of a file, gone through in order, or reached again by where they stand."""

    unit: str
    """What a row is called in messages: `line`, `entry`."""

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        """Where each row stands, its number for messages, and its values.

        Raises:
            ShardError: naming the file, the row and what to do.
        """
        ...

    def read(self, offset: int) -> Values:
        """The values of the row that stands there."""
        ...


class LineRows:
    """Rows of a file with a JSON object in every line, which stay on the disk.

    Args:
        file: the file; empty lines are passed over.
    """

    unit = "line"

    _header = 0
    """Lines at the start that are no rows."""

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
        """The values of the row that stands there."""
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
        file: where the list was read.
        entries: its objects.
        unit: what an entry is called: `entry`, `entry of images`.
    """

    def __init__(self, file: Path, entries: Sequence[Any], unit: str = "entry") -> None:
        self.unit = unit
        self._entries = [_object(file, f"{unit} {row_number}", value) for row_number, value in enumerate(entries, 1)]

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        return ((offset, offset + 1, values) for offset, values in enumerate(self._entries))

    def read(self, offset: int) -> Values:
        """The values of the entry with this number, from 0."""
        return self._entries[offset]


def json_content(file: Path, form: str) -> Rows | dict[str, Any]:
    """Rows of a JSON list or of JSON lines; or the object that a JSON file holds.

    What is in the file counts, not whether its name ends with `.json` or `.jsonl`.

    Args:
        file: the file.
        form: what it should look like, for messages.

    Raises:
        ShardError: naming the file, the row and what to do.
    """
    if file.suffix.lower() != ".json" and not _starts_as_list(file):
        return LineRows(file)
    content = read_json_or_lines(file, form)
    if content is None:
        return LineRows(file)
    if isinstance(content, dict) and _OF_ROWS & content.keys() and not _OF_WHOLES & content.keys():
        return ListRows(file, [content], "line")
    return ListRows(file, content) if isinstance(content, list) else content


def _starts_as_list(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(64).decode("utf-8-sig", "replace").lstrip().startswith("[")


def _object(file: Path, where: str, value: Any) -> Values:
    if not isinstance(value, dict):
        raise ShardError(f'{file}, {where}: {short_repr(value)} is no object; expected one like {{"image": …}}')
    return value
