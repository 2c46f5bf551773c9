"""Rows of tables: CSV, TSV, pipes, and the two files of Flickr's captions."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from blip2_train.data.annotations.entry import short_repr
from blip2_train.data.annotations.rows import LineRows, Values
from blip2_train.errors import ShardError

_LONGEST_CELL = 1 << 30
"""Largest number of characters in a cell, which may hold an image."""
_TOKEN_LINE = re.compile(r"(?P<image_name>[^\t]+)#(?P<comment_number>\d+)\t(?P<comment>.*)")
_PIPE_LINE = re.compile(r"(?P<image_name>[^|]+)\|\s*(?P<comment_number>\d+)\s*[|\s](?P<comment>.*)")
"""One line of the published file lacks its second pipe."""
_PIPE_HEADER = re.compile(r"image_name\s*\|\s*comment_number\s*\|\s*comment\s*")


class TableRows:
    """Rows of a CSV or TSV file with a header line, which stay on the disk.

    Args:
        file: the file; the delimiter is the most frequent candidate in its first line.
    """

    unit = "line"

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("rb") as stream:
            first = stream.readline().removeprefix(codecs.BOM_UTF8)
            self._delimiter = max(",;\t|", key=lambda delimiter: first.count(delimiter.encode()))
            reader = self._reader(stream, first)
            try:
                self._header: list[str] = [name.strip() for name in next(reader, [])]
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._unreadable(error) from None
            self._start, self._lines = stream.tell(), reader.line_num

    def __iter__(self) -> Iterator[tuple[int, int, Values]]:
        with self._file.open("rb") as stream:
            offset = stream.seek(self._start)
            reader = self._reader(stream)
            try:
                for values in reader:
                    row_number = self._lines + reader.line_num
                    if values:
                        yield offset, row_number, self._named(values, f"line {row_number}")
                    offset = stream.tell()
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._unreadable(f"line {self._lines + reader.line_num}: {error}") from None

    def read(self, offset: int) -> Values:
        """The values of the row at an offset."""
        with self._file.open("rb") as stream:
            stream.seek(offset)
            return self._named(next(self._reader(stream), []), f"byte {offset}")

    def _reader(self, stream: BinaryIO, first: bytes = b"") -> Any:
        csv.field_size_limit(_LONGEST_CELL)
        lines = map(bytes.decode, chain([first] * bool(first), stream))
        return csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=True)

    def _named(self, values: Sequence[str], where: str) -> Values:
        if len(values) != len(self._header):
            raise ShardError(
                f"{self._file}, {where}: not as many values as the header names columns; put captions that contain "
                f"{self._delimiter!r} in double quotes"
            )
        return dict(zip(self._header, values, strict=True))

    def _unreadable(self, error: object) -> ShardError:
        return ShardError(f"{self._file} is no readable table ({error}); save it as UTF-8 CSV with a header line")


class FlickrRows(LineRows):
    """Flickr8k's and Flickr30k's own files: `*.token` (`1.jpg#0<tab>caption`), or `results.csv` with pipes.

    The columns are `image_name`, `comment_number` and `comment`. Quotation marks in captions have no meaning.

    Args:
        file: the file.
        pattern: pattern of a line.
        header: number of header lines.
    """

    def __init__(self, file: Path, pattern: re.Pattern[str], header: int) -> None:
        super().__init__(file)
        self._pattern, self._header = pattern, header

    def _values(self, line: bytes, where: str) -> Values:
        try:
            text = line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ShardError(f"{self._file}, {where}: no UTF-8 text ({error}); save it as UTF-8") from None
        if (match := self._pattern.fullmatch(text)) is None:
            raise ShardError(
                f"{self._file}, {where}: {short_repr(text)} is not like the lines before, image, number and caption; "
                "repair it, or remove it"
            )
        return {name: value.strip() for name, value in match.groupdict().items()}


def table_rows(file: Path) -> TableRows | FlickrRows:
    """The rows of a table, whose kind is detected by its first line.

    Raises:
        ShardError: with the file, the row and what to do.
    """
    with file.open("rb") as stream:
        first = stream.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    if _PIPE_HEADER.fullmatch(first):
        return FlickrRows(file, _PIPE_LINE, header=1)
    if file.name.lower().endswith((".token", ".token.txt")) or _TOKEN_LINE.fullmatch(first):
        return FlickrRows(file, _TOKEN_LINE, header=0)
    return TableRows(file)
