"""Ctrl-C for commands, also where Python cannot handle a signal: inside native code, as while processes meet."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

STARTING, REPEATED = 5.0, 2.0
"""Seconds after which a process that is still inside native code is ended: while the processes of a run start, where
one may wait for another that Ctrl-C has ended; and at a second Ctrl-C."""
_LATER = 1.0
"""Seconds after which another Ctrl-C is a second one: a terminal and a launcher both pass on the first."""
_handled = 0.0
"""When a handler last ran."""


def note_handled() -> None:
    """Record that a handler of Ctrl-C runs; every handler calls this first."""
    global _handled
    _handled = time.monotonic()


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, as Python's own handler does."""
    note_handled()
    raise KeyboardInterrupt


def watch_interrupts(end: Callable[[], None]) -> None:
    """Handle Ctrl-C by `raise_interrupt`, and have `end` called from a thread where no handler gets to run.

    To be called by the main thread.

    Args:
        end: Ends the process.
    """
    signal.signal(signal.SIGINT, raise_interrupt)
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    signal.set_wakeup_fd(sending.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiving, end), daemon=True, name="interrupts").start()


def _watch(signals: socket.socket, end: Callable[[], None]) -> None:
    first = 0.0
    while received := signals.recv(64):
        if signal.SIGINT not in received:
            continue
        now = time.monotonic()
        repeated = first > 0 and now - first > _LATER
        first = first or now
        starting = signal.getsignal(signal.SIGINT) is raise_interrupt and int(os.environ.get("WORLD_SIZE", "1")) > 1
        if repeated or starting:
            time.sleep(REPEATED if repeated else STARTING)
            if _handled < now - _LATER / 2:
                end()
