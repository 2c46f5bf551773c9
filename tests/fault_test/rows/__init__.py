"""The rows, by what is bad."""

from __future__ import annotations

import importlib

from fault_test.table import ROWS, Row

_PARTS = ("settings", "models", "annotations", "shards", "images", "days", "signals", "remote")


def load_rows() -> list[Row]:
    """All rows, in the order of the table."""
    for part in _PARTS:
        importlib.import_module(f"fault_test.rows.{part}")
    return list(ROWS)
