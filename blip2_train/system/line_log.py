"""The log of a run: what it reports and what libraries log, also what the terminal does not show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from blip2_train.system.launcher import launched_as_first_process
from blip2_train.system.screen import plain_logs, printable

LINES = "run.log"


class LineLog(logging.Handler):
    """Keeps lines until the run has its folder, then appends each to `run.log` there, with the time.

    As a handler it takes what is logged, too. A line that cannot be written, as on a full disk, is dropped: a run does
    not end for it.
    """

    def __init__(self) -> None:
        super().__init__()
        plain_logs([self])
        self._waiting: list[str] = []
        self._file: TextIO | None = None

    def open(self, folder: Path) -> None:
        """Write what there is, and from now on each line at once."""
        with suppress(OSError):
            self._file = (folder / LINES).open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
        waiting, self._waiting = self._waiting, []
        self._write("".join(waiting))

    def add(self, text: str) -> None:
        """Take a line, or several that belong together."""
        line = f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {printable(text)}\n"
        if self._file is None:
            self._waiting.append(line)
        else:
            self._write(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Take what is logged."""
        try:
            text = self.format(record)
        except Exception:  # of a call whose arguments do not fit its text: no run ends for it
            self.handleError(record)
        else:
            self.add(f"{record.levelname.lower()}: {text}")

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        self._file = None
        super().close()

    def _write(self, lines: str) -> None:
        with suppress(OSError):
            if self._file is not None:
                self._file.write(lines)


@contextmanager
def logged_lines() -> Iterator[LineLog]:
    """A log that takes what all loggers of the first process let through, until the end."""
    log = LineLog()
    if launched_as_first_process():
        logging.getLogger().addHandler(log)
    try:
        yield log
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
