"""Starts a run as torchrun does it, or another command, and ends every process of it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from blip2_train.errors import TrainingError

PROGRAM = "from blip2_train.cli.train.command import command; command()"
MARK = "BLIP2_KILL_TEST"
"""Environment variable by which every process of a run is known, whatever session or parent it has."""
_LONGEST = 20.0
"""Seconds after SIGKILL within which all processes must be gone."""


class LaunchedCommand:
    """A command in processes of its own.

    torchrun starts each process in a new session, and readers belong to a fork server: killing a process group would
    leave most of them. They are found by a mark in their environment, which all inherit, in `/proc`.

    Args:
        command: What is started.
        log: File that everything they print is appended to.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._known: list[int] = []
        name, _, value = self._mark.partition("=")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._launcher = subprocess.Popen(
                command,
                env={"OMP_NUM_THREADS": "1", **os.environ, name: value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = time.monotonic()

    @property
    def status(self) -> int | None:
        """Exit status of the launcher; None while it runs."""
        return self._launcher.poll()

    def look(self) -> None:
        """Learn which processes there are, so that a kill need not search first."""
        self._known = self._find()

    def kill(self) -> None:
        """SIGKILL for the launcher, the training processes and their readers, until none is left.

        Raises:
            TrainingError: if some are still there after a while.
        """
        processes, deadline = [self._launcher.pid, *self._known], time.monotonic() + _LONGEST
        while processes:
            for pid in processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._launcher.poll()
            processes = self._find()
            if processes and time.monotonic() > deadline:
                raise TrainingError(f"processes {', '.join(map(str, processes))} of the run outlive SIGKILL")
        self._launcher.wait()

    def wait(self) -> None:
        """Wait until it ends by itself.

        Raises:
            TrainingError: if it fails, or leaves processes behind.
        """
        status = self._launcher.wait()
        deadline = time.monotonic() + _LONGEST
        while (left := self._find()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            self.kill()
        if status or left:
            reason = f"ended with status {status}" if status else f"left {len(left)} processes behind"
            raise TrainingError(f"the run {reason}; the end of {self.log}: {self.last_words()}")

    def last_words(self) -> str:
        """The last lines of its output, in one."""
        return " | ".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])

    def _find(self) -> list[int]:
        """Numbers of the processes of this run that are alive (one that has ended has no environment any more)."""
        processes, mark = [], self._mark.encode()
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    environment = Path(entry.path, "environ").read_bytes()
                except OSError:  # it has just ended, or is somebody else's
                    continue
                if mark in environment:
                    processes.append(int(entry.name))
        return processes


class LaunchedRun(LaunchedCommand):
    """The training command, as torchrun starts it.

    Args:
        settings: Of the training command.
        processes: How many train together.
        log: File that everything they print is appended to.
    """

    def __init__(self, settings: Sequence[str], processes: int, log: Path) -> None:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--no-python")
        command = [sys.executable, *launcher, f"--nproc-per-node={processes}", sys.executable, "-P", "-c", PROGRAM]
        super().__init__([*command, *settings], log)
