"""Work that tests give to workers of Ray, which import this module."""

from __future__ import annotations

import os
import signal
import time
from functools import cached_property
from pathlib import Path

from blip2_train.errors import ShardError


class Costly:
    """Sets something up at its first task, and reports which process and which setting up did each."""

    @cached_property
    def _state(self) -> str:
        return os.urandom(8).hex()

    def __call__(self, task: int) -> tuple[int, int, str]:
        time.sleep(0.01)  # so that none can do all of them before the other has begun
        return task, os.getpid(), self._state


class Killed:
    """Is killed at a task: once if it finds no such file, which it leaves, else always.

    Args:
        marker: that file; None = always.
    """

    def __init__(self, marker: Path | None) -> None:
        self._marker = marker

    def __call__(self, task: int) -> int:
        if task == 3 and (self._marker is None or not self._marker.exists()):
            if self._marker is not None:
                self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task


def refuse_three(task: int) -> int:
    if task == 3:
        raise ShardError("three cannot be read")
    if task == 4:
        raise FileNotFoundError(2, "No such file or directory", "four")
    return task


def working_folder(task: int) -> str:
    return os.getcwd()


class Unreadable:
    """What no process can unpickle."""

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("no number",)
