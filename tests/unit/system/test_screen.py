"""Text of data, of names and of errors cannot steer the terminal that it is shown on."""

from __future__ import annotations

import ast
import io
import json
import logging
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from blip2_train.cli.json_lines import Results
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ShardError
from blip2_train.system import screen
from blip2_train.system.screen import PlainFormatter, echo, make_console, printable

PACKAGE = Path(screen.__file__).parent
STEERING = [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F)]
STEERING += [*range(0x2066, 0x206A), 0x2028, 0x2029]
EVIL = "".join(map(chr, STEERING))


def is_plain(text: str) -> bool:
    return not set(text) & set(EVIL)


def test_every_control_character_becomes_an_escape() -> None:
    assert printable("a\tb\nc é 日本 🙂 \U000e0067 ‍") == "a\tb\nc é 日本 🙂 \U000e0067 ‍"
    assert printable("\x1b[2J\r\x7f\x9b\u202e") == r"\x1b[2J\x0d\u007f\u009b\u202e"
    assert is_plain(printable(EVIL)) and len(printable(EVIL)) >= 4 * len(EVIL)


def test_a_console_shows_escapes_and_keeps_its_colours() -> None:
    file = io.StringIO()
    console = make_console(file=file, force_terminal=True, color_system="standard", width=200)
    table = Table("name")
    table.add_row("cell \x1b[2J [/no markup] :smile:")
    console.print(table)
    console.print(Text("text \x1b]0;title\x07", style="red"))
    console.print("line \x9b31m\r gone [bold]", highlight=False, soft_wrap=True)
    shown = file.getvalue()
    for expected in (r"cell \x1b[2J [/no markup] :smile:", r"\x1b]0;title", r"line \u009b31m", "[bold]"):
        assert expected in shown
    assert "\x1b[2J" not in shown and "\x9b" not in shown and "\x07" not in shown and "\r" not in shown
    assert "\x1b[31m" in shown
    with Progress(console=console) as progress:  # still a bar that draws over itself
        progress.update(progress.add_task("bar", total=2), completed=1)
    assert "\x1b[2K" in file.getvalue()


def test_lines_and_logs(capsys: pytest.CaptureFixture[str]) -> None:
    echo("caption", EVIL, flush=True)
    shown = capsys.readouterr().out
    assert is_plain(shown) and shown.startswith("caption ") and shown.endswith("\n")
    record = logging.LogRecord("blip2_train", logging.WARNING, "", 1, "%s: \x1b[2J", (EVIL,), None)
    assert is_plain(PlainFormatter().format(record))


def test_an_error_about_a_name_of_control_characters_keeps_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: list[str]) -> None:
        logging.getLogger("blip2_train.test_screen").warning("warned of %s", EVIL)
        raise ShardError("/data/a\nb\r\x1b[2K\u2028c.json cannot be read (\x1b[31m)")

    assert run_command(fail, []) == 2
    message = capsys.readouterr().err
    assert is_plain(message)
    assert message.splitlines()[-1] == r"error: /data/a b\x0d\x1b[2K\u2028c.json cannot be read (\x1b[31m)"


def test_json_on_the_screen_stays_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = {"image": "a\x7f.jpg", "caption": EVIL + "é\u202e"}
    with Results(None) as results:
        results.write([record])
    (line,) = capsys.readouterr().out.splitlines()
    assert is_plain(line) and json.loads(line) == record and "é" in line
    with Results(tmp_path / "file.jsonl") as results:
        results.write([record])
    assert json.loads((tmp_path / "file.jsonl").read_text("utf-8")) == record


def test_nothing_is_printed_beside_it() -> None:
    """Every line that the package prints passes through `screen`."""
    beside = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "print", "Console", "rich.print", "sys.stdout.write", "sys.stderr.write",
            }:  # fmt: skip
                beside.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert [line for line in beside if not line.startswith("screen.py")] == []
