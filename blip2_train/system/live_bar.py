"""A progress bar that nothing breaks: what is printed, warned of or logged meanwhile appears above it."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress
from rich.text import Text


class LiveBar(Progress):
    """A bar of rich's; while it is shown, standard output and error go above it where they are the terminal, too.

    A stream that goes to a file stays there, and so does what a forked process writes.

    Args:
        *columns: Of the bar.
        console: That it is shown on.
        **options: Of `rich.progress.Progress`.
    """

    def __init__(self, *columns: Any, console: Console, **options: Any) -> None:
        super().__init__(*columns, console=console, redirect_stdout=False, redirect_stderr=False, **options)
        self._above = ExitStack()

    def start(self) -> None:
        """Show the bar."""
        super().start()
        if not self.disable and self.console.is_terminal:
            self._above.enter_context(_streams_above(self.console))

    def stop(self) -> None:
        """Leave the bar as it is, and give the streams back."""
        self._above.close()
        super().stop()


def packed(parts: Sequence[str], width: int) -> list[str]:
    """Parts in lines of at most `width` characters, two spaces between them; no part is broken that fits a line.

    Example:
        >>> packed(["ITC 4.602", "ITM 0.674", "38 samples/s"], 22)
        ['ITC 4.602  ITM 0.674', '38 samples/s']
    """
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines += [part[start : start + width] for start in range(0, len(part), width)]
    return lines


@contextmanager
def _streams_above(console: Console) -> Iterator[None]:
    """Standard output and error, and the logs that are written there, appear above the bar of a console."""
    console.file = console.file  # the stream itself, no longer whatever is called `sys.stdout`
    taken = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream.isatty():
            taken[name] = _Above(console, stream)
            setattr(sys, name, taken[name])
    logs = [(log, above) for above in taken.values() for log in _logs_on(above.stream)]
    for log, above in logs:
        log.setStream(above)
    try:
        yield
    finally:
        for log, above in logs:
            log.setStream(above.stream)
        for name, above in taken.items():
            above.finish()
            if getattr(sys, name) is above:
                setattr(sys, name, above.stream)


def _logs_on(stream: TextIO) -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    every = [one for logger in loggers if isinstance(logger, logging.Logger) for one in logger.handlers]
    return [one for one in every if isinstance(one, logging.StreamHandler) and one.stream is stream]


class _Above(io.TextIOBase):
    """Prints whole lines on a console; in a forked process, on the stream that it stands for."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        self.stream = stream
        self._console, self._process, self._begun, self._lock = console, os.getpid(), "", threading.RLock()

    def write(self, text: str) -> int:
        if os.getpid() != self._process:
            return self.stream.write(text)
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self._console.print(Text.from_ansi(line), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        if os.getpid() != self._process:
            self.stream.flush()

    def finish(self) -> None:
        """Print the last line, though its end is missing."""
        if self._begun:
            self.write("\n")

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding
