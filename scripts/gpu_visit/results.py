"""Rows of a visit: written at once by the process that measures, collected by the one that started it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Add = Callable[..., None]
"""`add(table, **row)`: a row of a table, which is on the disk when it returns."""


class SkippedPart(Exception):
    """A part that cannot be measured here; the message says why."""


def writer(path: Path) -> Add:
    """What a part adds its rows by; each is a line of JSON at the end of a file."""

    def add(table: str, /, **row: Any) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"table": table, **row}, default=str) + "\n")

    return add


def read_rows(path: Path) -> list[Row]:
    """The rows that a part has written, also if it was stopped within one."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # stopped while it wrote
            continue
    return rows
