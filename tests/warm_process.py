"""Starts commands from a process that has loaded what they import, which takes far longer than a tiny run itself.

A command forked from it is a process of its own, as one that a shell starts; but all of them share one hash seed, and
the order in which modules were loaded. So there are two such processes, which differ in both: what is compared with a
run of one of them should itself come from the other.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

LOADED = ("blip2_train.cli.run", "blip2_train.cli.evaluate", "blip2_train.training.lost_contact", "matplotlib.pyplot")
HERE = Path(__file__).parent
_MOST = 1 << 16
"""Bytes of a request at most."""


def child_environment(**more: str) -> dict[str, str]:
    """What commands of tests run in: this process's environment, one thread, and the tests' own modules at hand."""
    paths = os.pathsep.join([os.environ["PYTHONPATH"], *map(str, (HERE.parent, HERE, HERE / "integration"))])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


class WarmProcess:
    """A Python script with its arguments, in a session of its own; what tests need of `subprocess.Popen`.

    Args:
        command: Path of the script, and its arguments.
        processes: How many are to run it together, as a launcher would start them; `pid` is the first of them, and the
            others belong to its process group.
        other: Fork from the other process that has loaded everything.
        **environment: See `child_environment`.
    """

    def __init__(self, command: Sequence[str], processes: int = 1, other: bool = False, **environment: str) -> None:
        self._server = _server(other)
        ends = [os.pipe(), os.pipe()]
        environments = [child_environment(**environment)]
        if processes > 1:
            environments = [environments[0] | place for place in _places(processes)]
        request = json.dumps({"command": list(command), "environments": environments}).encode()
        assert len(request) < _MOST
        socket.send_fds(self._server, [request], [write for _, write in ends])
        for _, write in ends:
            os.close(write)
        self._printed = [os.fdopen(read, encoding="utf-8") for read, _ in ends]
        self.pid = int(self._server.recv(_MOST))

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; all that it and its own processes wrote to stdout and stderr."""
        with ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(end.read) for end in self._printed]
            try:
                output, errors = [one.result(timeout) for one in reading]
            except TimeoutError:
                os.killpg(self.pid, signal.SIGKILL)
                raise
        for end in self._printed:
            end.close()
        self._server.send(json.dumps({"wait": self.pid}).encode())
        self.returncode = int(self._server.recv(_MOST))
        return output, errors


def _places(processes: int) -> list[dict[str, str]]:
    """What a launcher tells each process of a group on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    meeting |= {"WORLD_SIZE": str(processes), "NODE_RANK": "0"}
    return [{**meeting, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(processes)]


@cache
def _server(other: bool) -> socket.socket:
    """The way to one of this process's two servers, which end with it."""
    mine, its = socket.socketpair()
    command = [sys.executable, __file__, str(its.fileno()), *(reversed(LOADED) if other else LOADED)]
    environment = child_environment(PYTHONHASHSEED="2" if other else "1")
    server = subprocess.Popen(command, env=environment, pass_fds=[its.fileno()], start_new_session=True)
    its.close()

    def end() -> None:
        mine.close()
        server.wait(60)

    atexit.register(end)
    return mine


def _serve(way: socket.socket) -> dict[str, Any] | None:
    """Fork at each request; in the new process, what it is to be, and None in the server once nobody asks any more."""
    while True:
        message, ends, *_ = socket.recv_fds(way, _MOST, 2)
        if not message:
            return None
        request = json.loads(message)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            os.setsid()
            for stream, end in zip((1, 2), ends, strict=True):
                os.dup2(end, stream)
        for end in ends:
            os.close(end)
        if answer == 0 and "command" in request:
            way.close()
            return dict(request)
        way.send(str(answer).encode())


def _main() -> None:
    for name in sys.argv[2:]:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a forked process has only the thread that forked"
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        first, *others = request["environments"]
        os.environ.clear()
        os.environ.update(next((place for place in others if os.fork() == 0), first))
        sys.argv[:] = request["command"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main()
