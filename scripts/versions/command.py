"""`python scripts/versions.py`: do the versions that `pyproject.toml` admits work?"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo
from versions.environment import RESOLUTION, find_uv
from versions.row import STEPS, TESTS, Row, try_row

ABOUT = f"""\
For each Python: the lowest version of everything that pyproject.toml names, then the newest, each in an environment of
its own, which is deleted before the next one (6 GB each, and as much to download). In it: {STEPS} steps of demo_stage1,
and the fast part of the tests (units and parity). A row of the table has the result. Ends with 1 unless all rows hold.

To be run once per release, on a machine with all three Pythons."""
SHOWN = ("torch", "torchvision", "transformers", "timm", "lightning", "torchmetrics")
_PROJECT = Path(__file__).parents[2]


def main(arguments: list[str]) -> None:
    """Try all rows, one after the other, and print them."""
    options = _parser().parse_args(arguments)
    if not (_PROJECT / "pyproject.toml").is_file() or not (_PROJECT / "tests").is_dir():
        raise ConfigError(f"{_PROJECT} holds no pyproject.toml and tests; run this from a checkout of the project")
    logs = Path(options.logs)
    logs.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the environment is deleted then, too
    with tempfile.TemporaryDirectory(prefix="blip2_train_versions_") as name:
        uv = find_uv(Path(name))
        for python in options.python:
            for bound in options.of:
                echo(f"Python {python}, {bound}: installing, training, testing …", file=sys.stderr, flush=True)
                rows.append(try_row(uv, python, bound, options.tests, _PROJECT, Path(name), logs))
                echo("\n".join(table(rows[-1:])[len(rows) > 1 and 2 :]), flush=True)
    (logs / "versions.txt").write_text("\n".join(map(everything, rows)), "utf-8")
    if any(row.problem for row in rows):
        echo("\n" + "\n".join(f"{row.python} {row.bound}: {row.problem[:1000]}" for row in rows if row.problem))
    if not all(row.held for row in rows):
        sys.exit(1)


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a table in Markdown: a head of two lines, and a line for each row."""
    names = ["Python", "versions", *SHOWN, "passed", "failed", "steps", "seconds", "held"]
    lines = [names, ["---"] * len(names)]
    for row in rows:
        shown = [row.versions.get(name, "–") for name in SHOWN]
        counts = [str(row.passed), str(row.failed), str(row.steps), f"{row.seconds:.0f}"]
        lines.append([row.python, row.bound, *shown, *counts, "yes" if row.held else "no"])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def everything(row: Row) -> str:
    """All packages of a row with their versions, as a file of requirements."""
    lines = [f"# Python {row.python}, {row.bound}: {'held' if row.held else 'not held'}"]
    return "\n".join([*lines, *(f"{name}=={row.versions[name]}" for name in sorted(row.versions)), ""])


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="versions.py", description=ABOUT)
    parser.add_argument(
        "--python", nargs="+", default=["3.11", "3.12", "3.13"], metavar="VERSION",
        help="which Pythons, by version or by the path of an interpreter (default: 3.11 3.12 3.13)",
    )  # fmt: skip
    parser.add_argument("--of", nargs="+", choices=list(RESOLUTION), default=list(RESOLUTION), help="which versions")
    parser.add_argument(
        "--tests", nargs="+", default=list(TESTS), metavar="PATH", help=f"which tests (default: {' '.join(TESTS)})"
    )
    parser.add_argument(
        "--logs", default="outputs/versions", metavar="FOLDER",
        help="where the output of tests and training, and all versions, are kept (default: outputs/versions)",
    )  # fmt: skip
    return parser


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
