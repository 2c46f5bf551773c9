"""What an annotation file holds, by name and content: rows, or one JSON object with lists of pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blip2_train.errors import ShardError

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
EXPECTED = (
    'a list of {"image": …, "caption": …}, COCO captions {"images": [{"id", "file_name"}], "annotations": '
    '[{"image_id", "caption"}]}, Karpathy\'s {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, or '
    'Visual Genome\'s [{"id", "regions": [{"image_id", "phrase"}]}]'
)

Rows = list[tuple[str, Mapping[str, Any]]]
"""Name of each row for messages, and its values by column."""


def read_content(file: Path) -> Rows | dict[str, Any]:
    """Rows of a table, of JSON lines or of a JSON list; or the object of a JSON file that has `images`.

    Raises:
        ShardError: naming the file, the row and what to do.
    """
    if not file.is_file():
        raise ShardError(f"annotation file {file} does not exist")
    return _table(file) if file.suffix.lower() in (".csv", ".tsv") else _json(file)


def _table(file: Path) -> Rows:
    rows: Rows = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            stream.seek(0)
            for values in (reader := csv.DictReader(stream, delimiter=delimiter, strict=True)):
                where = f"line {reader.line_num}"
                if None in values or None in values.values():
                    raise ShardError(
                        f"{file}, {where}: not as many values as the header names columns; put captions that contain "
                        f"{delimiter!r} in double quotes"
                    )
                rows.append((where, values))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ShardError(f"{file} is no readable table ({error}); save it as UTF-8 CSV with a header line") from None
    return rows


def _json(file: Path) -> Rows | dict[str, Any]:
    """What a JSON file holds: one object, a list of objects, or an object per line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ShardError(f"{file} is no UTF-8 text ({error}); save it as UTF-8") from None
    try:
        content = json.loads(text) if file.suffix.lower() == ".json" else None
    except ValueError as error:
        if not str(error).startswith("Extra data"):
            raise ShardError(f"{file} is no valid JSON ({error}); expected {EXPECTED}") from None
        content = None
    if content is None:
        return list(_lines(file, text))
    if isinstance(content, list):
        return [(f"entry {number}", _object(file, f"entry {number}", v)) for number, v in enumerate(content, 1)]
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ShardError(f"{file} is of no known layout; expected {EXPECTED}")
    return content


def _lines(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", _object(file, f"line {number}", json.loads(line))
            except ValueError as error:
                raise ShardError(f"{file}, line {number}: no valid JSON ({error}); write one object per line") from None


def _object(file: Path, where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ShardError(f'{file}, {where}: {str(value)[:40]!r} is no object; expected {{"image": …, "caption": …}}')
    return value
