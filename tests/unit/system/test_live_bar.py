"""On a real pseudo-terminal: what comes while a bar is shown stands above it, and the bar stays whole."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.progress import BarColumn, TextColumn
from terminal_screen import terminal

from blip2_train.system.live_bar import LiveBar
from blip2_train.system.screen import make_console, plain_logs

WARNING = "shard 00017.tar: attempt 2 follows in 1.5 s, as the store did not answer within its timeout; nothing is lost"


@pytest.fixture(params=[70, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(request.param))
    for name in ("NO_COLOR", "FORCE_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    yield request.param


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("blip2_train.tests.live_bar")
    made.propagate = False
    yield made
    made.handlers.clear()


def bar() -> LiveBar:
    return LiveBar(TextColumn("step {task.completed}/{task.total}"), BarColumn(), console=make_console())


def test_what_comes_meanwhile_stands_above_the_bar(
    columns: int, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(columns) as (stream, screen):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        logger.addHandler(logging.StreamHandler())  # made before the bar, as every library does
        plain_logs(logger.handlers)
        with bar() as shown:
            task = shown.add_task("", total=5, completed=1)
            shown.refresh()
            logger.warning(WARNING)
            logger.warning("of a name: %s", "\x1b[2J\x1b[9A")
            sys.stderr.write(warnings.formatwarning("a value is odd", UserWarning, "file.py", 1))  # as `warn` does
            print("printed by a library")
            print("without an end", end="", file=sys.stderr)
            shown.update(task, completed=4)
            if os.fork() == 0:  # a reading process
                print("", end="", flush=True)
                os._exit(0)
            os.wait()
        assert sys.stdout is stream and logger.handlers[-1].stream is stream  # type: ignore[attr-defined]
        logger.warning("afterwards")
        lines = screen.lines()
    text = "\n".join(lines)
    assert sum(line.startswith("step ") for line in lines) == 1, text
    assert WARNING in "".join(lines) and r"of a name: \x1b[2J\x1b[9A" in lines
    order = ["shard 00017", "of a name", "UserWarning: a value is odd", "printed by", "without an end", "step 4/5"]
    positions = [text.index(part) for part in [*order, "afterwards"]]
    assert positions == sorted(positions), text
    assert max(map(len, lines)) <= columns


def test_a_stream_that_goes_to_a_file_stays_there(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    with terminal(80) as (stream, screen), (tmp_path / "errors").open("w") as errors:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", errors)
        logger.addHandler(logging.StreamHandler())
        with bar() as shown:
            shown.add_task("", total=5, completed=1)
            logger.warning("for the file")
        assert "for the file" not in "\n".join(screen.lines())
    assert (tmp_path / "errors").read_text() == "for the file\n"


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_colours_can_be_turned_off(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    colour = "\x1b[31m"
    for value, expected in ((None, True), ("dumb", False)):
        monkeypatch.delenv("NO_COLOR", raising=False)
        if value:
            monkeypatch.setenv(variable, value)
        with terminal(80) as (stream, screen):
            make_console(file=stream).print("red", style="red")
            sent = screen.sent
        assert (colour in sent) == expected and "red" in sent


def test_what_is_no_terminal_gets_no_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with bar() as shown:
            shown.add_task("", total=5)
            make_console().print("bold and red", style="bold red")
    assert "\x1b" not in (tmp_path / "log").read_text()
