"""Reads the content of an annotation file, rows or one JSON object, with the format detected by name and content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_train.data.annotations.json_content import missing_file
from blip2_train.data.annotations.parquet_rows import parquet_rows
from blip2_train.data.annotations.rows import Rows, json_content
from blip2_train.data.annotations.tables import table_rows
from blip2_train.errors import ShardError

PARQUET = ".parquet"
_TABLES = (".csv", ".tsv", ".token", ".token.txt")
_FLICKR8K = "captions.txt"
"""The name of Flickr8k's CSV file as it is passed on today."""
SUFFIXES = (*_TABLES, _FLICKR8K, ".json", ".jsonl", ".ndjson")


def read_content(file: Path, form: str) -> Rows | dict[str, Any]:
    """Rows of a table, of JSON lines or of a JSON list; or the object that a JSON file holds.

    Args:
        file: the file.
        form: expected form, for messages.

    Raises:
        ShardError: with the file, the row and what to do.
    """
    if not file.exists():
        raise missing_file("annotation file", file)
    try:
        if file.suffix.lower() == PARQUET:
            return parquet_rows(file)
        return table_rows(file) if is_table(file) else json_content(file, form)
    except OSError as error:
        raise ShardError(f"annotation file {file} cannot be read ({error.strerror}); give a file") from None


def is_table(file: Path) -> bool:
    """Whether a file is a table, in which all values are texts."""
    return file.name.lower().endswith(_TABLES) or file.name.lower() == _FLICKR8K


def as_integer(identity: int | str) -> int | str:
    """A text of a table as an integer, if it is one; any other value unchanged.

    Example:
        >>> as_integer("42"), as_integer("0042"), as_integer("img_42")
        (42, '0042', 'img_42')
    """
    if (
        isinstance(identity, str)
        and identity.isascii()
        and identity.isdecimal()
        and str(int(identity[:4000])) == identity
    ):
        return int(identity)
    return identity
