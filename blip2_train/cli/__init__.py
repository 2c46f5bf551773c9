"""The commands. Ctrl-C ends one in one line even while it loads its libraries, before it can do anything about it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from blip2_train.system.launcher import launched_as_first_process


def end_while_loading(*_: object) -> None:
    """End the process: an exception that rises out of an import comes out as a traceback, or as another error."""
    if status := interrupted_status():
        os.write(2, b"stopped by Ctrl-C; nothing was begun\n")
    os._exit(status)


def interrupted_status() -> int:
    """Exit status after Ctrl-C: 130 of the first process of a run, 0 of the others.

    Lightning kills the first process, silently, a few seconds after another one has ended with any other status.
    """
    return 130 if launched_as_first_process() else 0


def _is_command() -> bool:
    """Whether Python was started as a command of this project, and does not only use it as a library."""
    started = Path(sys.argv[0] if sys.argv else "")
    return started.name.startswith("blip2-") or (started.parent.name == "scripts" and started.suffix == ".py")


if (
    _is_command()
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, end_while_loading)
