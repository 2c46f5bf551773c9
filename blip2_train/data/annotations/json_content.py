"""Reads JSON from any origin; its faults are errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blip2_train.errors import ShardError

_DIGITS = 4000
"""Most digits of a number that is converted to an int; Python refuses more than 4,300 (sys.int_info)."""


class LongInteger:
    """A number with too many digits; no field accepts one, so the error message can name the field."""

    def __init__(self, digits: str) -> None:
        self._digits = len(digits)

    def __repr__(self) -> str:
        return f"a number of {self._digits:,} digits"


def _whole(digits: str) -> int | LongInteger:
    return int(digits) if len(digits) <= _DIGITS else LongInteger(digits)


_DECODER = json.JSONDecoder(parse_constant=lambda name: None)
_PATIENT = json.JSONDecoder(parse_constant=lambda name: None, parse_int=_whole)


def parse_json(text: str) -> Any:
    """The value of a JSON text; `NaN` and `Infinity`, which JSON does not have, become None.

    It uses the standard library, as msgspec and pydantic refuse a whole file for one surrogate.

    Raises:
        ValueError: in one line, if it is no JSON, or its lists are too deep.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number with too many digits
        return _PATIENT.decode(text)
    except RecursionError:
        raise ValueError("lists within lists, too deep to be read") from None


def read_json(file: Path, form: str) -> Any:
    """The content of a JSON file.

    Args:
        file: the file.
        form: expected form, for the error.

    Raises:
        ShardError: if it is missing, cannot be read, is broken or empty.
    """
    try:
        return _filled(file, parse_json(read_text(file)), form)
    except ValueError as error:
        raise _broken(file, error, form) from None


def read_json_or_lines(file: Path, form: str) -> Any:
    """The content of a JSON file; None if it holds one value after the other, as JSON lines do.

    Raises:
        ShardError: as `read_json`.
    """
    try:
        return _filled(file, parse_json(read_text(file)), form)
    except ValueError as error:
        if str(error).startswith("Extra data"):
            return None
        raise _broken(file, error, form) from None


def read_text(file: Path) -> str:
    """The text of a file, which may begin with a byte order mark.

    Raises:
        ShardError: if it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return file.expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise missing_file("annotation file", file) from None
    except OSError as error:
        raise ShardError(f"annotation file {file} cannot be read ({error.strerror}); give a file") from None
    except UnicodeDecodeError as error:
        raise ShardError(f"{file} is no UTF-8 text ({error}); save it as UTF-8") from None


def missing_file(what: str, file: Path | str) -> ShardError:
    """The error for a file that is not there, with the folder that a relative path was looked for in."""
    where = "" if Path(file).expanduser().is_absolute() else f" in {Path.cwd()}"
    return ShardError(f"{what} {file} does not exist{where}; correct its path, or put the file there")


def require_local(what: str, path: str) -> None:
    """Look whether a file is there; one at an address is not looked for.

    Raises:
        ShardError: if it is not.
    """
    if "://" not in path and not Path(path).expanduser().exists():
        raise missing_file(what, path)


def _broken(file: Path, error: ValueError, form: str) -> ShardError:
    return ShardError(f"annotation file {file} is broken JSON ({error}); get it again, expected {form}")


def _filled(file: Path, content: Any, form: str) -> Any:
    if not isinstance(content, list | dict) or not content:
        raise ShardError(f"annotation file {file} holds nothing; expected {form}")
    return content
