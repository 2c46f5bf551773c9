"""Results of `predict.py` as CSV or Parquet, and in one row for each image."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from blip2_train.cli.json_lines import Results
from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.system.extras import import_extra

CSV, PARQUET = ".csv", ".parquet"
Columns = Mapping[str, type]
"""Type of each column by its name: `str`, `float` or `int`."""
_ROWS = 4096
"""Rows of a group in a Parquet file."""


def open_results(path: Path | None, columns: Columns) -> Results | CsvResults | ParquetResults:
    """Results of the format that the file's ending stands for; lines of JSON for any other, and for none.

    Args:
        path: Where to; None = standard output.
        columns: Of the records, in order; `image` and `error` come with them.

    Raises:
        ConfigError: if pyarrow, which Parquet needs, is not installed.
    """
    every = {"image": str, **columns, "error": str}
    suffix = "" if path is None else path.suffix.lower()
    if path is None or suffix not in (CSV, PARQUET):
        return Results(path)
    return CsvResults(path, every) if suffix == CSV else ParquetResults(path, every)


class CsvResults:
    """A table with a header, written out batch by batch; an old one is replaced with the first row only.

    Args:
        path: Where to.
        columns: Of the table.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self._columns = path, list(columns)
        self._file: TextIOWrapper | None = None

    def __enter__(self) -> CsvResults:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write a row for each record, and see to it that they are kept whatever happens."""
        new = self._file is None
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        table = csv.DictWriter(self._file, self._columns)
        if new:
            table.writeheader()
        table.writerows(records)
        self._file.flush()
        kept_when_stopped(f"the results so far are in {self.path}")


class ParquetResults:
    """A Parquet file, which appears under its name when it is closed, also where the work was stopped.

    Args:
        path: Where to.
        columns: Of the table.

    Raises:
        ConfigError: if pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self._arrow = import_extra("pyarrow", f"--output {path}", "or write .jsonl or .csv")
        self._parquet = import_extra("pyarrow.parquet", f"--output {path}", "or write .jsonl or .csv")
        types = {str: self._arrow.string(), float: self._arrow.float64(), int: self._arrow.int64()}
        self._schema = self._arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self.path = path
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._writer: Any = None
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> ParquetResults:
        return self

    def __exit__(self, *_: object) -> None:
        self._write_group()
        if self._writer is not None:
            self._writer.close()
            os.replace(self._unfinished, self.path)

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add a row for each record."""
        kept_when_stopped(f"the results so far are in {self.path}")
        self._rows += [{name: _plain(value) for name, value in record.items()} for record in records]
        if len(self._rows) >= _ROWS:
            self._write_group()

    def _write_group(self) -> None:
        if self._rows:
            if self._writer is None:
                self._writer = self._parquet.ParquetWriter(self._unfinished, self._schema)
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def _plain(value: Any) -> Any:
    """Text that Parquet, which is UTF-8, can hold."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def wide(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The records of an image as one, a column for each of their values.

    Args:
        records: All that is written about an image.
        keys: Fields that tell records apart; the names of the columns get their values.

    Example:
        >>> wide([{"text": "a cat", "itc": 0.3}, {"text": "a dog", "itc": 0.1}], ["text"])
        [{'itc: a cat': 0.3, 'itc: a dog': 0.1}]
    """
    row: dict[str, Any] = {}
    for record in records:
        label = ", ".join(str(record[key]) for key in keys if key in record)
        row |= {f"{name}: {label}" if label and name != "error" else name: value
                for name, value in record.items() if name not in keys}  # fmt: skip
    return [row]


def wide_columns(columns: Columns, labels: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Columns:
    """The columns of `wide` for records with these values of their keys."""
    values = {name: kind for name, kind in columns.items() if name not in keys}
    rows = [{**label, **values} for label in labels]
    return dict(wide(rows, keys)[0]) if rows else values
