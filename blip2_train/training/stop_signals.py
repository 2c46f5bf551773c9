"""Receives the signals by which a machine or a person stops a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from blip2_train.distributed import largest_over_processes
from blip2_train.system.interrupt import note_handled
from blip2_train.system.launcher import launched_as_first_process

ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SIGTERM: a machine or a person ends the run. SIGUSR1: a scheduler takes the machine away, and gives one later.
SIGINT: Ctrl-C."""
AGAIN = 1.0
"""Seconds after which another Ctrl-C is a second one: a terminal and a launcher both pass on the first."""
_INTERRUPTED = 128 + signal.SIGINT


class StopSignals:
    """Records that a signal came, so that a step can be finished first; a second Ctrl-C ends the process at once.

    Args:
        folder: The run folder, for what is printed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._received, self._interrupted = 0, 0.0
        self._children: Sequence[Any] = ()

    def listen(self, children: Sequence[Any] = ()) -> None:
        """Handle signals from now on, in place of Lightning's trainer, which restores its handlers at the end.

        Lightning would answer SIGTERM from inside the handler with a collective, for which the other processes do not
        wait, SIGUSR1 under SLURM with a checkpoint of half a step, and Ctrl-C with the loss of all steps since the last
        checkpoint.

        Args:
            children: Processes (`subprocess.Popen`) that this one has started and that end with it.
        """
        self._children = children
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                signal.signal(number, self._receive)

    def agreed(self) -> int:
        """The signal that any process has received, SIGTERM before SIGUSR1 before Ctrl-C; 0 for none.

        Every process must call it.
        """
        return largest_over_processes(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            note_handled()
            now = time.monotonic()
            if self._interrupted and now - self._interrupted > AGAIN:
                end_at_once(f"the newest checkpoint is as it was: resume_from={self._folder} goes on", self._children)
            if not self._interrupted:
                self._interrupted = now
                print_in_handler("Ctrl-C: the run is saved after this step; a second one ends it at once")
        self._received = max(self._received, int(number))


@contextmanager
def finishing() -> Iterator[None]:
    """Let what ends a run (export, results, curves) be written to its end, whatever signal comes.

    It takes seconds, and without it a finished run would lack a part. A second Ctrl-C ends the process at once; an
    export is whole even then, the older or the new one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGINT:
            note_handled()
        if number == signal.SIGINT and first and now - first > AGAIN:
            end_at_once("all steps are saved; resume_from=<run folder> writes the export again")
        if not first:
            print_in_handler("the run is at its end and being written; it ends by itself")
        first = first or now

    before = {number: signal.signal(number, receive) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def interrupted_in_training() -> Iterator[None]:
    """Keep a Ctrl-C what it is: Lightning turns one before the first step, or in a validation, into exit status 1.

    Raises:
        KeyboardInterrupt: in place of Lightning's `SystemExit`.
    """
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None


def end_at_once(what_is_left: str, children: Sequence[Any] = ()) -> None:
    """End this process, with one line from the first process of a run, and those that it has started."""
    print_in_handler(f"stopped at once by Ctrl-C; {what_is_left}")
    for child in children:
        with suppress(OSError):
            child.kill()
    os._exit(_INTERRUPTED)


def print_in_handler(line: str) -> None:
    """Write a line to standard error from inside a signal handler, where printing may meet a printing."""
    if launched_as_first_process():
        with suppress(OSError):
            os.write(2, f"{line}\n".encode())
