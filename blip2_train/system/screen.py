"""Printing to a terminal: control characters of data are escaped, so that no text can steer the terminal.

A caption, a name or an error then clears no screen, hides no line and reverses no text.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 20.0
"""Seconds between lines on how far something is, where there is no terminal."""
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line end, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029]"  # line ends of Unicode
)


def printable(text: object) -> str:
    r"""A text with its control characters as escapes; tabs and line ends stay.

    Those of ASCII become `\x1b`, the others `\u202e`, which JSON reads as what they were.

    Example:
        >>> print(printable("a \x1b[2J cat" + chr(0x202E)))
        a \x1b[2J cat\u202e
    """
    return _STEERING.sub(lambda match: _escape(ord(match[0])), str(text))


def in_one_line(text: object) -> str:
    r"""A text in one line: its line ends as escapes, too.

    Example:
        >>> print(in_one_line("a name\nerror: of somebody"))
        a name\nerror: of somebody
    """
    return str(text).replace("\r", "\\r").replace("\n", "\\n")


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"


def echo(*texts: object, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print texts as `print` does, to standard output if no file is given, with control characters as escapes."""
    stream = sys.stdout if file is None else file
    stream.write(printable(" ".join(map(str, texts))) + end)
    if flush:
        stream.flush()


def make_console(**options: Any) -> Console:
    """A console of rich's that shows the control characters of what it prints as escapes; its own colours stay.

    Args:
        **options: Options of `rich.console.Console`.
    """
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
    from rich.segment import Segment

    class Plain:
        def __init__(self, inside: ConsoleRenderable) -> None:
            self._inside = inside

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for part in console.render(self._inside, options):
                yield part if part.control else Segment(printable(part.text), part.style)

    class PlainText(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Plain(one) for one in renderables]

    made = Console(**{"markup": False, "emoji": False} | options)
    made.push_render_hook(PlainText())
    return made


class PlainFormatter(logging.Formatter):
    """Formats a record of a log as another formatter does, with control characters as escapes.

    Args:
        inside: The other formatter; None = the message alone.
    """

    def __init__(self, inside: logging.Formatter | None = None) -> None:
        super().__init__("%(message)s")
        self._inside = inside

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return printable(super().format(record) if self._inside is None else self._inside.format(record))


def plain_logs(handlers: Iterable[logging.Handler | None]) -> None:
    """Let handlers escape control characters."""
    for handler in handlers:
        if handler is not None and not isinstance(handler.formatter, PlainFormatter):
            handler.setFormatter(PlainFormatter(handler.formatter))
