"""Ctrl-C ends a process that is inside native code, where no handler of Python gets to run."""

import os
import signal
import subprocess
import sys
import time

import pytest

BLOCKED = """
import ctypes, os, sys, time
from blip2_train.system import interrupt
interrupt.STARTING, interrupt.REPEATED = 0.5, 0.5
def end():
    os.write(1, b"ended")
    os._exit(7)
interrupt.watch_interrupts(end)
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
os.write(1, b"ready ")
if sys.argv[1] == "native":
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever, and no signal interrupts it
try:
    time.sleep(60)
except KeyboardInterrupt:
    os.write(1, b"raised")
    time.sleep(1.5)
"""


def interrupted(where: str, times: int, processes: int) -> tuple[int | None, bytes]:
    """Exit status and output of a process that gets Ctrl-C; None if it did not end within 3 s."""
    environment = {**os.environ, "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-c", BLOCKED, where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.read(6) == b"ready "
        for _ in range(times):
            time.sleep(1.2 if times > 1 else 0.2)
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(3), process.stdout.read()
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.stdout.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "times", "processes", "expected"),
    [
        ("native", 1, 2, (7, b"ended")),
        ("native", 1, 1, (None, b"")),  # one process waits for no other: the call returns by itself
        ("native", 2, 1, (7, b"ended")),
        ("python", 1, 2, (0, b"raised")),
    ],
)
def test_a_blocked_process_ends(where: str, times: int, processes: int, expected: tuple[int | None, bytes]) -> None:
    assert interrupted(where, times, processes) == expected
