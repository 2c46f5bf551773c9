"""Where the results of `predict.py` go: lines of JSON as they come, and a bar or lines that show how far it is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.errors import ConfigError
from blip2_train.system.live_bar import LiveBar
from blip2_train.system.screen import echo, make_console, printable

_LINE_EVERY = 20.0
"""Seconds between lines of progress where there is no terminal."""
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


class Bar:
    """A progress bar on standard error, or a line now and then where that is no terminal.

    Args:
        total: Number of images or texts; None = not known.
        hidden: Whether the lines of the results, on the same terminal, show the progress already.
        name: What is going on.
        unit: Of what is counted, for the lines.
        last_line: When the last line was printed, by `time.monotonic`; None = now.
    """

    def __init__(
        self,
        total: int | None,
        hidden: bool,
        name: str = "predict",
        unit: str = "",
        last_line: float | None = None,
    ) -> None:
        console = make_console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._in_lines = not hidden and not console.is_terminal
        self.last_line = time.monotonic() if last_line is None else last_line
        """When a line was printed last."""
        self.progress = LiveBar(*columns, *times, console=console, disable=hidden or self._in_lines)
        self.task = self.progress.add_task(name, total=total)
        self._name, self._unit = name, unit and f" {unit}"

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, count: int) -> None:
        """Move on by `count`."""
        self.progress.advance(self.task, count)
        task = self.progress.tasks[self.task]
        self._line(int(task.completed), None if task.total is None else int(task.total), None)

    def at(self, done: int, total: int, rate: float | None = None) -> None:
        """Show that `done` of `total` are finished, and how many in a second."""
        name = self._name if rate is None else f"{self._name}, {rate:,.1f} a second"
        self.progress.update(self.task, completed=done, total=total, description=name)
        self._line(done, total, rate)

    def _line(self, done: int, total: int | None, rate: float | None) -> None:
        """Print a line if there is no bar, and the last one is old."""
        if not self._in_lines or time.monotonic() - self.last_line < _LINE_EVERY:
            return
        of, left = ("", "") if total is None else (f" of {total:,}", "")
        if rate is not None and total is not None:
            left = f", {rate:,.1f} a second, {timedelta(seconds=round((total - done) / rate))} left"
        echo(f"{self._name}: {done:,}{of}{self._unit}{left}", file=sys.stderr, flush=True)
        self.last_line = time.monotonic()
