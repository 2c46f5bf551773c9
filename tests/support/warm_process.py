"""Starts commands from a process that has loaded what they import, which takes far longer than a tiny run itself.

What tests start themselves is a `WarmProcess`, what the code under test starts has the fixture `warm_python`.

A command forked from it is a process of its own, as one that a shell starts; but all of them share one hash seed, and
the order in which modules were loaded. So there are two such processes, which differ in both: what is compared with a
run of one of them should itself come from the other. Both are started when they are first needed, serve all workers of
pytest, and end with the process that `serve_until_the_end` was called in.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS, ROOT = HERE.parent, HERE.parents[1]
MOST = 1 << 16
"""Bytes of a request at most."""
WAY = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
"""Kind of socket, on which a message arrives whole."""
_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG: the signal that a process gets when its parent has ended."""
_FOLDER = "BLIP2_TEST_PROCESSES"
"""Variable with the folder in which the two processes are reached."""
PYTHON = "BLIP2_TEST_PYTHON"
"""Variable with what a forked process starts other Pythons with, see `warm_python`."""
_PYTHON = sys.executable
"""The real one: tests may set another name."""
_LOCK = threading.Lock()
"""Held while a request waits for its answer."""


def serve_until_the_end() -> None:
    """Have commands of this process and of those that it starts forked from the same two processes."""
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix=f"blip2-{os.getpid()}-")
        atexit.register(shutil.rmtree, os.environ[_FOLDER], ignore_errors=True)
        python = Path(warm_python())
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "$@"\n')
        python.chmod(0o755)


def warm_python() -> str:
    """Path of a Python for those that start one themselves, which has its command forked as a `WarmProcess` is."""
    return str(Path(os.environ[_FOLDER]) / "python")


def child_environment(**more: str) -> dict[str, str]:
    """What commands of tests run in: this process's environment, one thread, and the tests' own modules at hand."""
    paths = os.pathsep.join([os.environ["PYTHONPATH"], *map(str, (ROOT, HERE, TESTS, TESTS / "integration"))])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


class WarmProcess:
    """A Python script or module with its arguments, in a session of its own; what tests need of `subprocess.Popen`.

    Args:
        command: Path of the script, or `-m` and the module, and its arguments.
        processes: How many are to run it together, as a launcher would start them; `pid` is the first of them, and the
            others belong to its process group.
        other: Fork from the other process that has loaded everything.
        folder: Where it works; None = where pytest was started.
        **environment: See `child_environment`.
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int = 1,
        other: bool = False,
        folder: Path | None = None,
        **environment: str,
    ) -> None:
        self._server = _server(other)
        ends = [os.pipe(), os.pipe()]
        environments = [child_environment(**environment)]
        if processes > 1:
            environments = [environments[0] | ranks for ranks in _ranks(processes)]
        request = {"command": list(command), "folder": str(folder or "."), "environments": environments}
        with _LOCK:
            self.pid = _fork(self._server, request, [write for _, write in ends])
        for _, write in ends:
            os.close(write)
        self._printed = [os.fdopen(read, encoding="utf-8") for read, _ in ends]

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; all that it and its own processes wrote to stdout and stderr."""
        with ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(end.read) for end in self._printed]
            try:
                output, errors = [one.result(timeout) for one in reading]
            except TimeoutError:
                self.kill()
                raise
        for end in self._printed:
            end.close()
        with _LOCK:
            self.returncode = _wait(self._server, self.pid)
        return output, errors

    def kill(self) -> None:
        """Kill it, and all that belongs to its group; one that has ended by itself stays as it ended."""
        kill_group(self.pid)


def _ranks(processes: int) -> list[dict[str, str]]:
    """The variables that a launcher sets for each process of a group on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    meeting |= {"WORLD_SIZE": str(processes), "NODE_RANK": "0"}
    return [{**meeting, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(processes)]


@cache
def _server(other: bool) -> socket.socket:
    """This process's way to one of the two that commands are forked from."""
    path = Path(os.environ[_FOLDER]) / str(int(other))
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _start(path, other)
    way = socket.socket(*WAY)
    way.connect(str(path))
    return way


def _fork(server: socket.socket, request: dict[str, Any], ends: Sequence[int]) -> int:
    """The process that becomes the requested command, and writes to `ends`."""
    message = json.dumps(request).encode()
    assert len(message) < MOST
    socket.send_fds(server, [message], ends)
    return int(server.recv(MOST))


def _wait(server: socket.socket, process: int) -> int:
    server.send(json.dumps({"wait": process}).encode())
    return int(server.recv(MOST))


def kill_group(process: int) -> None:
    """Kill it with its group, if they still run; alone if it has none yet."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _start(path: Path, other: bool) -> None:
    """Start one of the two, and wait until it can be reached."""
    ready, its = os.pipe()
    owner = path.parent.name.split("-")[1]
    command = [_PYTHON, str(HERE / "warm_server.py"), str(path), owner, str(its), str(int(other))]
    environment = child_environment(PYTHONHASHSEED="2" if other else "1")
    log = path.with_suffix(".log")  # of its own: whoever reads what this process writes waits until all have closed it
    with log.open("w") as file:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        subprocess.Popen(command, env=environment, pass_fds=[its], start_new_session=True, **streams)
    os.close(its)
    with os.fdopen(ready) as end:
        end.read()  # to its end, which comes when the other closes it
    assert path.exists(), f"the process that commands are forked from did not start: {log.read_text()}"


def _be_python(arguments: list[str]) -> int:
    """Have the script or module that Python is asked for forked, pass signals on to it, and end as it does.

    It ends with who started it, and the forked process with it. Anything else is left to the real Python. What a
    process has beside arguments, folder, environment and output (limits, ignored signals, input) is not passed on.

    Returns:
        The exit status.
    """
    options = [flag for flag in arguments[:2] if flag in ("-u", "-P")]
    command = arguments[len(options) :]
    if command[0].startswith("-") and command[0] != "-m":
        os.execv(_PYTHON, [_PYTHON, *arguments])
    ctypes.CDLL(None).prctl(_WITH_PARENT, signal.SIGKILL)
    request = {"command": command, "options": options, "folder": os.getcwd(), "environments": [dict(os.environ)]}
    server = _server(other=os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0")
    process = _fork(server, request, [1, 2])

    def pass_on(received: int, _: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, received)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    status = _wait(server, process)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(_be_python(sys.argv[1:]))
