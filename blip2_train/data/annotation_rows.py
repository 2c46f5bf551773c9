"""What an annotation file holds, by name and content: rows, or one JSON object with lists of pictures."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from blip2_train.errors import ShardError

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
EXPECTED = (
    'a list of {"image": …, "caption": …}, COCO captions {"images": [{"id", "file_name"}], "annotations": '
    '[{"image_id", "caption"}]}, Karpathy\'s {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, or '
    'Visual Genome\'s [{"id", "regions": [{"image_id", "phrase"}]}]'
)
DOWNLOAD = "download the pictures with img2dataset first, and give the tar shards that it writes as source"
_LONGEST_CELL = 1 << 30
"""Characters of a cell, which may hold a picture."""

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

    def read(self, place: int) -> Values:
        """The values of the row that stands there."""
        ...


class TableRows:
    """Rows of a CSV or TSV file with a header line, which stay on the disk.

    Args:
        file: the file; the delimiter is what its first line has most of.
    """

    unit = "line"

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("rb") as stream:
            first = stream.readline().removeprefix(codecs.BOM_UTF8)
            self._delimiter = max(",;\t", key=lambda delimiter: first.count(delimiter.encode()))
            reader = self._reader(stream, first)
            try:
                self._header: list[str] = next(reader, [])
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._unreadable(error) from None
            self._start, self._lines = stream.tell(), reader.line_num

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        with self._file.open("rb") as stream:
            place = stream.seek(self._start)
            reader = self._reader(stream)
            try:
                for values in reader:
                    number = self._lines + reader.line_num
                    if values:
                        yield place, number, self._named(values, f"line {number}")
                    place = stream.tell()
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._unreadable(error) from None

    def read(self, place: int) -> Values:
        """The values of the row that stands there."""
        with self._file.open("rb") as stream:
            stream.seek(place)
            return self._named(next(self._reader(stream), []), f"byte {place}")

    def _reader(self, stream: BinaryIO, first: bytes = b"") -> Any:
        csv.field_size_limit(_LONGEST_CELL)
        lines = map(bytes.decode, chain([first] * bool(first), stream))
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _named(self, values: Sequence[str], where: str) -> Values:
        if len(values) != len(self._header):
            raise ShardError(
                f"{self._file}, {where}: not as many values as the header names columns; put captions that contain "
                f"{self._delimiter!r} in double quotes"
            )
        return dict(zip(self._header, values, strict=True))

    def _unreadable(self, error: Exception) -> ShardError:
        return ShardError(f"{self._file} is no readable table ({error}); save it as UTF-8 CSV with a header line")


class LineRows:
    """Rows of a file with a JSON object in every line, which stay on the disk.

    Args:
        file: the file; empty lines are passed over.
    """

    unit = "line"

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        place = 0
        with self._file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield place, number, self._values(line, f"line {number}")
                place += len(line)

    def read(self, place: int) -> Values:
        """The values of the row that stands there."""
        with self._file.open("rb") as stream:
            stream.seek(place)
            return self._values(stream.readline(), f"byte {place}")

    def _values(self, line: bytes, where: str) -> Values:
        try:
            return _object(self._file, where, json.loads(line.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            raise ShardError(f"{self._file}, {where}: no UTF-8 text ({error}); save it as UTF-8") from None
        except ValueError as error:
            raise ShardError(f"{self._file}, {where}: no valid JSON ({error}); write one object per line") from None


class ListRows:
    """Entries of a JSON list.

    Args:
        file: where the list was read.
        entries: its objects.
    """

    unit = "entry"

    def __init__(self, file: Path, entries: Sequence[Any]) -> None:
        self._entries = [_object(file, f"entry {number}", value) for number, value in enumerate(entries, 1)]

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        return ((place, place + 1, values) for place, values in enumerate(self._entries))

    def read(self, place: int) -> Values:
        """The values of the entry with this number, from 0."""
        return self._entries[place]


def read_content(file: Path) -> Rows | dict[str, Any]:
    """Rows of a table, of JSON lines or of a JSON list; or the object of a JSON file that has `images`.

    Raises:
        ShardError: naming the file, the row and what to do.
    """
    if not file.is_file():
        raise ShardError(f"annotation file {file} does not exist")
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return TableRows(file)
    return _json(file) if suffix == ".json" else LineRows(file)


def lists_addresses(columns: Iterable[str]) -> bool:
    """Whether columns, or the values of a first line that is no header, are those of a list of pictures to download."""
    usual = ("url", "urls", "image_url", "image_urls")
    return any(name.lower() in usual or is_address(name) for name in columns)


def is_address(path: str) -> bool:
    """Whether a picture's path is the address of one on the web."""
    return path.startswith(("http://", "https://"))


def _json(file: Path) -> Rows | dict[str, Any]:
    """What a JSON file holds: one object, a list of objects, or an object per line."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ShardError(f"{file} is no UTF-8 text ({error}); save it as UTF-8") from None
    except ValueError as error:
        if str(error).startswith("Extra data"):
            return LineRows(file)
        raise ShardError(f"{file} is no valid JSON ({error}); expected {EXPECTED}") from None
    if isinstance(content, list):
        return ListRows(file, content)
    if isinstance(content, dict) and lists_addresses(content):
        raise ShardError(f"{file} lists addresses of pictures: {DOWNLOAD}")
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ShardError(f"{file} is of no known layout; expected {EXPECTED}")
    return content


def _object(file: Path, where: str, value: Any) -> Values:
    if not isinstance(value, dict):
        raise ShardError(f'{file}, {where}: {str(value)[:40]!r} is no object; expected {{"image": …, "caption": …}}')
    return value
