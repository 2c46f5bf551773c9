"""Writes files atomically, and records with a checksum, so that a damaged one raises instead of being read."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blip2_train.errors import DamagedFile
from blip2_train.system.records import JsonObject, parse_record

CHECKSUM = "crc32"
"""Key of a record's checksum: a plain number, so that a flat list of numbers stays one."""


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write a file so that a reader sees the old one or the new one, never a part; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.writing-{os.getpid()}")
    encoded = content if isinstance(content, bytes) else content.encode("utf-8", errors="backslashreplace")
    try:
        with unfinished.open("wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def write_checked(path: Path, record: Mapping[str, Any], indent: int | None = 1) -> Path:
    """Write a mapping as JSON, atomically, with the checksum of its content as its last entry."""
    return write_atomically(path, json.dumps(with_checksum(record), indent=indent, ensure_ascii=False) + "\n")


def read_checked(path: Path, instead: str) -> dict[str, Any]:
    """The record that `write_checked` wrote, without the checksum; one without (of an earlier version) is not checked.

    Args:
        path: The file.
        instead: The remedy if it is damaged, for the message.

    Raises:
        DamagedFile: if it is cut short, no JSON object, or not what was written.
        OSError: if it cannot be read.
    """
    return parse_checked(path.read_bytes(), path, instead)


def parse_checked(content: bytes | str, name: object, instead: str) -> dict[str, Any]:
    """As `read_checked`, of content that was read elsewhere; `name` is that source, for the message."""
    record = parse_record(content, JsonObject, f"{name} is damaged: it", instead, DamagedFile)
    return without_checksum(record, name, instead)


def without_checksum(record: Mapping[str, Any], name: object, instead: str) -> dict[str, Any]:
    """A record as it was given to `write_checked`; raises `DamagedFile` if it does not fit its checksum."""
    if not agrees(record):
        raise DamagedFile(
            f"{name} is damaged: its content does not fit its checksum; {instead}, or remove its entry {CHECKSUM} if "
            "you changed it yourself"
        )
    return {key: value for key, value in record.items() if key != CHECKSUM}


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the checksum of its content as its last entry."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    return {**content, CHECKSUM: _checksum(content)}


def agrees(record: Mapping[str, Any]) -> bool:
    """Whether a record fits its checksum; true if it has none."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    return CHECKSUM not in record or record[CHECKSUM] == _checksum(content)


def _checksum(content: Mapping[str, Any]) -> int:
    """CRC-32 of the JSON that stays the same however it is laid out."""
    plain = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return zlib.crc32(plain.encode("utf-8", errors="backslashreplace"))
