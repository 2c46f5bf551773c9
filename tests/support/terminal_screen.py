"""A pseudo-terminal, and what a person would see on it: enough of a terminal for what rich sends."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_PART = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\]8;[^\x1b]*\x1b\\|(\r)|(\n)|([^\x1b\r\n]+)")

_MARK = "\0"
"""Sent to learn that all before it has come."""


class Screen:
    """The other end of a terminal of so many columns, read as soon as something is sent."""

    def __init__(self, reader: int, stream: TextIO, columns: int) -> None:
        self._reader, self._stream, self._columns = reader, stream, columns
        self._bytes, self._marks = b"", 0
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def sent(self) -> str:
        """All that was sent until now."""
        self._marks += 1
        self._stream.write(_MARK)
        self._stream.flush()
        end = time.monotonic() + 30
        while self._bytes.count(_MARK.encode()) < self._marks:
            assert time.monotonic() < end, "the terminal sends nothing any more"
            time.sleep(0.01)
        return self._bytes.decode().replace(_MARK, "")

    def lines(self) -> list[str]:
        """The lines now, those that were scrolled away among them, without spaces at their ends."""
        return shown(self.sent, self._columns)

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while part := os.read(self._reader, 1 << 16):
                self._bytes += part


@contextmanager
def terminal(columns: int) -> Iterator[tuple[TextIO, Screen]]:
    """A stream to a terminal of its own, and its screen."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with os.fdopen(writer, "w", buffering=1) as stream:
        yield stream, Screen(reader, stream, columns)
    os.close(reader)


def shown(sent: str, columns: int) -> list[str]:
    """What a terminal shows after all that was sent to it."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for match in _PART.finditer(sent):
        numbers, command, back, down, text = match.groups()
        if back:
            column = 0
        elif down:
            row += 1
        elif command == "A":
            row = max(0, row - int(numbers or 1))
        elif command == "K":
            rows[row] = [] if numbers == "2" else rows[row][:column]
        for letter in text or "":
            if column == columns:
                row, column = row + 1, 0
            rows += [[] for _ in range(row + 1 - len(rows))]
            rows[row] += " " * (column + 1 - len(rows[row]))
            rows[row][column] = letter
            column += 1
        rows += [[] for _ in range(row + 1 - len(rows))]
    return ["".join(one).rstrip() for one in rows]
