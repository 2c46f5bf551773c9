"""The process that has loaded what commands import, and forks them; see `warm_process`, which starts it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any

from warm_process import MOST, PYTHON, WAY, kill_group

LOADED = (
    "blip2_train.cli.train.run",
    "blip2_train.cli.evaluation",
    "blip2_train.training.timeout",
    "matplotlib.pyplot",
)


def _welcome(path: Path, owner: int, ready: int) -> socket.socket:
    """Fork for each process that asks; in the new one, the way to who asked. Ends when the owner has."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(*WAY) as door:
        door.bind(str(path))
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
                os._exit(0)


def _serve(way: socket.socket) -> dict[str, Any] | None:
    """Fork at each request; in the new process, what it is to be, and None in the server once nobody asks any more.

    When the connection closes, what was started over it and not waited for is killed: killing a stand-in kills the real
    process.
    """
    running = set()
    while True:
        try:
            message, ends, *_ = socket.recv_fds(way, MOST, 2)
        except ConnectionError:
            message = b""
        if not message:
            for process in running:
                kill_group(process)
            return None
        request = json.loads(message)
        if "wait" in request:
            process = request["wait"]
            with open(os.pidfd_open(process)) as end:
                if way in select.select([way, end], [], [])[0]:
                    kill_group(process)
            answer = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            running.discard(process)
        elif (answer := os.fork()) == 0:
            os.setsid()
            for stream, end in zip((1, 2), ends, strict=True):
                os.dup2(end, stream)
        for end in ends:
            os.close(end)
        if answer == 0 and "command" in request:
            way.close()
            return dict(request)
        if "command" in request:
            running.add(answer)
        with contextlib.suppress(ConnectionError):
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


def _main() -> None:
    path, owner, ready, other = sys.argv[1:]
    _warm_up(LOADED[::-1] if int(other) else LOADED)
    assert threading.active_count() == 1, "a forked process has only the thread that forked"
    request = _serve(_welcome(Path(path), int(owner), int(ready)))
    if request is None:
        os._exit(0)  # at once: taking down all that is loaded takes a second
    first, *others = request["environments"]
    os.environ.clear()
    os.environ.update(next((environment for environment in others if os.fork() == 0), first))
    os.chdir(request["folder"])
    _fork_servers_of_readers()
    _open_streams()
    sys.executable = os.environ.get(PYTHON, sys.executable)
    _become(request["command"], request.get("options", []))


def _open_streams() -> None:
    """Output as a new Python has it: the server's own went to a file, where more can be done than in a pipe."""
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        how: dict[str, Any] = {"encoding": "utf-8", "errors": errors, "closefd": False}
        stream = os.fdopen(number, "w", 1 if number == 2 else -1, **how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _become(command: list[str], options: Sequence[str]) -> None:
    """Run a script, or a module behind `-m`, with its arguments."""
    if command[0] == "-m":
        sys.argv[:] = command[1:]
        sys.path[:1] = [] if "-P" in options else [os.getcwd()]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = command
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")


def _fork_servers_of_readers() -> None:
    """Fork what multiprocessing forks readers from, too: started anew, it would load the same once more.

    Not from a process with several threads, of which one may hold a lock.
    """
    start: Any = util.spawnv_passfds

    def fork(python: bytes, arguments: Sequence[bytes | str], ends: Sequence[int]) -> int:
        code = os.fsdecode(arguments[-1])
        if "forkserver" not in code or len(os.listdir("/proc/self/task")) > 1:
            return int(start(python, arguments, ends))
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            for number in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *ends}:
                with contextlib.suppress(OSError):
                    os.close(number)
            try:
                exec(code)
            except SystemExit:
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        return process

    util.spawnv_passfds = fork


if __name__ == "__main__":
    _main()
