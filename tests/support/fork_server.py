"""The process of Python's that forks the readers of data, as tests that change its environment or limits need it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing import forkserver


def stop_fork_server() -> None:
    """End it, so that the next reader comes from a new one.

    It is killed: asked to end, it lives as long as any process that a test has left holds a copy of its pipe.
    """
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
    server._stop()
