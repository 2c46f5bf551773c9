"""Starts commands from a process that has loaded what they import, which takes far longer than a tiny run itself.

A command forked from it is a process of its own, as one that a shell starts; but all of them share one hash seed, and
the order in which modules were loaded. So there are two such processes, which differ in both: what is compared with a
run of one of them should itself come from the other. Both are started when they are first needed, serve all workers of
pytest, and end with the process that `serve_until_the_end` was called in.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import runpy
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

LOADED = ("blip2_train.cli.run", "blip2_train.cli.evaluate", "blip2_train.training.lost_contact", "matplotlib.pyplot")
HERE = Path(__file__).parent
RUN = (__file__, "run")
"""Python with this and a command does the same as with the command alone."""
_MOST = 1 << 16
"""Bytes of a request at most."""
_PLACE = "BLIP2_TEST_PROCESSES"
"""Variable with the folder in which the two processes are reached."""
_LOCK = threading.Lock()
"""Held while a request waits for its answer."""


def serve_until_the_end() -> None:
    """Have commands of this process and of those that it starts forked from the same two processes."""
    if _PLACE not in os.environ:
        os.environ[_PLACE] = tempfile.mkdtemp(prefix=f"blip2-{os.getpid()}-")
        atexit.register(shutil.rmtree, os.environ[_PLACE], ignore_errors=True)


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
            environments = [environments[0] | place for place in _places(processes)]
        asked = {"command": list(command), "folder": str(folder or "."), "environments": environments}
        request = json.dumps(asked).encode()
        assert len(request) < _MOST
        with _LOCK:
            socket.send_fds(self._server, [request], [write for _, write in ends])
            self.pid = int(self._server.recv(_MOST))
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
            self._server.send(json.dumps({"wait": self.pid}).encode())
            self.returncode = int(self._server.recv(_MOST))
        return output, errors

    def kill(self) -> None:
        """Kill it, and all that belongs to its group; one that has ended by itself stays as it ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _places(processes: int) -> list[dict[str, str]]:
    """What a launcher tells each process of a group on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    meeting |= {"WORLD_SIZE": str(processes), "NODE_RANK": "0"}
    return [{**meeting, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(processes)]


@cache
def _server(other: bool) -> socket.socket:
    """This process's way to one of the two that commands are forked from."""
    place = Path(os.environ[_PLACE]) / str(int(other))
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _start(place, other)
    way = socket.socket(socket.AF_UNIX)
    way.connect(str(place))
    return way


def _start(place: Path, other: bool) -> None:
    """Start one of the two, and wait until it can be reached."""
    ready, its = os.pipe()
    owner = place.parent.name.split("-")[1]
    command = [sys.executable, __file__, str(place), owner, str(its), *(reversed(LOADED) if other else LOADED)]
    environment = child_environment(PYTHONHASHSEED="2" if other else "1")
    log = place.with_suffix(".log")  # of its own: whoever reads what this process writes waits until all have closed it
    with log.open("w") as file:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        subprocess.Popen(command, env=environment, pass_fds=[its], start_new_session=True, **streams)
    os.close(its)
    with os.fdopen(ready) as end:
        end.read()  # to its end, which comes when the other closes it
    assert place.exists(), f"the process that commands are forked from did not start: {log.read_text()}"


def _welcome(place: Path, owner: int, ready: int) -> socket.socket:
    """Fork for each process that asks; in the new one, the way to who asked. Ends when the owner has."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))
        door.listen()
        os.close(ready)
        door.settimeout(0.5)
        while True:
            with contextlib.suppress(TimeoutError):
                way, _ = door.accept()
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return way
                way.close()
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                sys.exit()


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


def _warm_up(modules: Sequence[str]) -> None:
    """Load modules, Hydra's grammar and the fonts of a figure: half of what a tiny run would take."""
    for name in modules:
        importlib.import_module(name)
    importlib.import_module("composed_once").compose_each_choice_once()
    for trainer in ("cpu", "ddp_cpu"):  # those of `tiny_run`; composing takes a fifth of such a run
        choices = ["experiment=demo_stage1", "data=shards", f"trainer={trainer}"]
        importlib.import_module("blip2_train").compose([*choices, "data.source=some"])
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, _ = pyplot.subplots()
    figure.tight_layout()
    pyplot.close(figure)


def _run() -> int:
    """Be, for a launcher that starts commands itself, the command that is forked elsewhere; its exit status."""
    process = WarmProcess(sys.argv[2:], other=os.environ.get("RANK", "0") != "0")
    for stream, text in zip((sys.stdout, sys.stderr), process.communicate(timeout=600), strict=True):
        stream.write(text)
    return process.returncode


def _main() -> None:
    place, owner, ready, *modules = sys.argv[1:]
    _warm_up(modules)
    assert threading.active_count() == 1, "a forked process has only the thread that forked"
    request = _serve(_welcome(Path(place), int(owner), int(ready)))
    if request is not None:
        first, *others = request["environments"]
        os.environ.clear()
        os.environ.update(next((place for place in others if os.fork() == 0), first))
        os.chdir(request["folder"])
        sys.argv[:] = request["command"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(_run())
    _main()
