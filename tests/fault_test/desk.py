"""Where one row works: a folder of its own, beside the world that all rows share and none may change."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_test.world import World
from tiny_run import TINY
from warm_process import ROOT, TESTS, WarmProcess, child_environment

CHILD = str(TESTS / "fault_test" / "child.py")
LONGEST = 120.0
"""Seconds that a command of a row may take, on a machine that does other things, too."""
WIDEST = 700
"""Characters of an error, without the names of the row's folders."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that move the cursor, hide text or turn it round; line ends and tabulators are looked at elsewhere."""


@dataclass
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """The lines with errors."""
        return [line for line in (self.out + "\n" + self.err).splitlines() if line.startswith("error: ")]


@dataclass
class Desk:
    """A row's own folder, and the commands run from it.

    Args:
        world: Made once; not to be changed.
        folder: New and empty.
    """

    world: World
    folder: Path
    seconds: float = 0.0
    kept: dict[Path, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        earlier = self.folder / "out" / "demo_stage1" / "earlier"
        earlier.mkdir(parents=True)
        self.keep(earlier / "results.json", b"{}")

    def keep(self, path: Path, content: bytes | None = None) -> Path:
        """A file that has to be there, unchanged, when the row has ended."""
        if content is not None:
            path.write_bytes(content)
        self.kept[path] = path.read_bytes()
        return path

    def lost(self) -> list[str]:
        """Files that were to be kept and are not what they were."""
        return [str(path) for path, was in self.kept.items() if not path.is_file() or path.read_bytes() != was]

    def training(self, *more: object, data: Sequence[str] | None = None) -> list[object]:
        """Arguments of a tiny training on the world's shards, or on other data."""
        tiny: list[object] = [one for one in TINY if data is None or not one.startswith("data")]
        given = [f"data.source={self.world.shards}"] if data is None else list(data)
        where = [f"paths.output_dir={self.folder / 'out'}", f"paths.run_dir={self.folder / 'out' / 'run'}"]
        return [*tiny, f"tokenizer={self.world.tokenizer}", *given, *where, "data.num_workers=0", *more]

    def captions(self, source: object, *more: object) -> list[object]:
        """Arguments of a tiny training on a file of captions."""
        return self.training(*more, data=["data=captions", f"data.source={source}", "data.holdout=2"])

    def run_folder(self) -> Path:
        """Where `training` writes."""
        return self.folder / "out" / "run"

    def start(
        self, command: str, *arguments: object, cold: bool = False, processes: int = 1, **conditions: Any
    ) -> WarmProcess | subprocess.Popen[str]:
        """Start a command of `scripts/`.

        Args:
            command: Its name, without `.py`.
            *arguments: Its arguments.
            cold: In a new interpreter, not forked from a warm one.
            processes: How many run it together.
            **conditions: `environment` (variables), and those of `child.py`.
        """
        environment = {"XDG_CACHE_HOME": str(self.folder / "cache")} | conditions.pop("environment", {})
        script = [str(ROOT / "scripts" / f"{command}.py"), *map(str, arguments)]
        if conditions:
            script = [CHILD, json.dumps(conditions), *script]
        if not cold:
            return WarmProcess(script, processes, folder=self.folder, **environment)
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, *script],
            env=child_environment(**environment),
            cwd=self.folder,
            text=True,
            start_new_session=True,
            **streams,
        )

    def run(self, command: str, *arguments: object, longest: float = LONGEST, **how: Any) -> Finished:
        """Run a command to its end, which has to come within `longest` seconds."""
        began = time.monotonic()
        return self.ended(self.start(command, *arguments, **how), began, longest)

    def ended(
        self, process: WarmProcess | subprocess.Popen[str], began: float | None = None, longest: float = LONGEST
    ) -> Finished:
        """Wait for its end."""
        began = time.monotonic() if began is None else began
        try:
            out, err = process.communicate(timeout=longest)
        except (TimeoutError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"it did not end within {longest:.0f} s") from None
        seconds = time.monotonic() - began
        self.seconds += seconds
        assert process.returncode is not None
        return Finished(process.returncode, out, err, seconds)

    def refused(self, command: str, *arguments: object, words: str, code: int = 2, **how: Any) -> str:
        """Run what has to end with one line of error; what came out."""
        return self.one_line(self.run(command, *arguments, **how), words, code)

    def one_line(self, finished: Finished, words: str, code: int = 2) -> str:
        """Assert that a command ended with one line of error that matches `words`; what came out."""
        output = finished.out + finished.err
        assert "Traceback" not in output, f"a traceback: {_end(output)}"
        assert finished.code == code, f"exit code {finished.code} instead of {code}: {_end(output)}"
        assert len(finished.errors) == 1, f"{len(finished.errors)} lines of error: {_end(output)}"
        (line,) = finished.errors
        assert re.search(words, line), f"the line lacks {words!r}: {line}"
        short = self.short(line)
        assert len(short) <= WIDEST, f"{len(short)} characters: {short}"
        self.clean(output)
        return f"{finished.code}, {short}"

    def well(self, command: str, *arguments: object, words: str = "", **how: Any) -> Finished:
        """Run what has to end with 0 and print `words`."""
        finished = self.run(command, *arguments, **how)
        output = finished.out + finished.err
        assert "Traceback" not in output and finished.code == 0, f"exit code {finished.code}: {_end(output)}"
        assert re.search(words, output), f"the output lacks {words!r}: {_end(output)}"
        self.clean(output)
        return finished

    @staticmethod
    def clean(output: str) -> None:
        """Assert that nothing that was printed moves the cursor of a terminal."""
        match = CONTROL.search(output.replace("\r", ""))
        assert not match, f"control character {match.group()!r} on the terminal" if match else ""

    def short(self, line: str) -> str:
        """A line without the names of temporary folders."""
        return line.replace(str(self.folder), "<row>").replace(str(self.world.folder), "<world>")

    def wait_for(self, what: Callable[[], bool], process: Any, longest: float = LONGEST) -> None:
        """Wait until something is so, while a command runs."""
        deadline = time.monotonic() + longest
        while not what():
            assert time.monotonic() < deadline, "what the row waits for did not come"
            try:
                os.kill(process.pid, 0)
            except ProcessLookupError:
                raise AssertionError("the command ended before what the row waits for") from None
            time.sleep(0.01)


def _end(output: str) -> str:
    return " | ".join(output.strip().splitlines()[-6:])[-900:] or "(nothing)"
