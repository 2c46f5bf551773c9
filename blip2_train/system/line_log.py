"""The log of a run: what it reports and what libraries log, also what the terminal does not show."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from blip2_train.errors import Blip2TrainError, RunStopped
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
    """A log that takes what all loggers of the first process let through, Python's warnings, and the error that ends.

    A library whose loggers pass nothing on, as transformers, has to be imported before.
    """
    log, first = LineLog(), launched_as_first_process()
    loggers = _ends_of_the_way() if first else []
    for logger in loggers:
        logger.addHandler(log)
    try:
        with _warnings_in(log) if first else nullcontext():
            yield log
    except Exception as error:
        if not isinstance(error, RunStopped):  # which the run has logged itself
            log.add(f"error: {_text_of(error)}")
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(log)
        log.close()


def _text_of(error: Exception) -> str:
    """What an error says, with its class where that says more: own errors are written for readers, others are not."""
    text = str(error)
    return text if text and isinstance(error, Blip2TrainError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def _ends_of_the_way() -> list[logging.Logger]:
    """The root of all loggers, and those that pass nothing on to it."""
    known = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    return [logging.getLogger(), *(one for one in known if not one.propagate)]


@contextmanager
def _warnings_in(log: LineLog) -> Iterator[None]:
    """Python's warnings are shown as before, and are in the log, too."""
    show = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        show(message, category, filename, lineno, file, line)
        if file is None:
            log.add(f"warning: {message} ({category.__name__}, {filename}, line {lineno})")

    warnings.showwarning = shown
    try:
        yield
    finally:
        if warnings.showwarning is shown:
            warnings.showwarning = show
