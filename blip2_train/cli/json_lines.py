"""Where the results of `predict.py` go: lines of JSON as they come."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.errors import ConfigError
from blip2_train.system.screen import printable

_AS_ESCAPES = "backslashreplace"
"""Names of files that are not UTF-8 become escapes, which are valid JSON."""


def new_file(name: str, overwrite: bool) -> Path:
    """A file to write; its folder is made.

    Raises:
        ConfigError: if it exists and may not be replaced, or cannot be written.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise ConfigError(f"--output {path} is there already; name another file, or pass --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {path}: its folder cannot be made ({error.strerror})") from None
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--output {path} may not be written; name a file in a folder of yours")
    return path


class Results:
    """Lines of JSON, written out batch by batch; a file is opened, and an old one replaced, with the first line only.

    Args:
        path: Where to; None = standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Results:
        if self.path is None:
            self._file = sys.stdout
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(errors=_AS_ESCAPES)
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None and self._file is not None:
            self._file.close()

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Write one line for each record, and see to it that they are kept whatever happens."""
        if self._file is None:
            assert self.path is not None
            self._file = self.path.open("w", encoding="utf-8", errors=_AS_ESCAPES)
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        self._file.writelines((line if self.path is not None else printable(line)) + "\n" for line in lines)
        self._file.flush()
        kept_when_stopped("the results so far are " + ("shown" if self.path is None else f"in {self.path}"))
