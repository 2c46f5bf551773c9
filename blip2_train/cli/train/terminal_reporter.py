"""Shows the notes of a run in the terminal, and keeps them in its log."""

from __future__ import annotations

import textwrap
from io import StringIO
from pathlib import Path

from rich.console import RenderableType

from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.system.line_log import LineLog
from blip2_train.system.screen import make_console
from blip2_train.training.lifecycle import first_process_only
from blip2_train.training.run import RunReporter

_WIDTH = 110
"""Characters of a table in the log."""


class TerminalReporter(RunReporter):
    """Prints the notes of a run; the log has the details, which the terminal shows only if they are to be seen.

    Args:
        log: Of the run.
        verbose: Whether the terminal shows the details, in the place of their summary.
    """

    def __init__(self, log: LineLog, verbose: bool) -> None:
        self._log, self._verbose = log, verbose

    def line(self, text: RenderableType) -> None:
        """One line, or a table, for terminal and log."""
        _show(text)
        self._log.add(_as_text(text))

    def summary(self, text: str) -> None:
        """One line for a terminal that shows no details."""
        if not self._verbose:
            _show(text)

    def detail(self, text: RenderableType) -> None:
        """One line, or a table, for the log."""
        if self._verbose:
            _show(text)
        self._log.add(_as_text(text))

    def progress(self, text: str) -> None:
        """One line for the log."""
        self._log.add(text)

    def begun(self, folder: Path) -> None:
        """Write the log into the run folder from now on."""
        self._log.open(folder)

    def kept(self, text: str) -> None:
        """What Ctrl-C says."""
        kept_when_stopped(text)


@first_process_only
def _show(text: RenderableType) -> None:
    console = make_console()
    if isinstance(text, str) and console.is_terminal:
        text = "\n".join(_in_whole_words(line, console.width) for line in text.split("\n"))
    console.print(text, highlight=False, soft_wrap=isinstance(text, str))


def _in_whole_words(line: str, width: int) -> str:
    """A line broken between words; a longer one is left to the terminal, so that a path can be copied."""
    return "\n".join(textwrap.wrap(line, max(1, width), break_long_words=False, break_on_hyphens=False))


def _as_text(shown: RenderableType) -> str:
    if isinstance(shown, str):
        return shown
    file = StringIO()
    make_console(file=file, width=_WIDTH).print(shown)
    return file.getvalue().rstrip("\n")
