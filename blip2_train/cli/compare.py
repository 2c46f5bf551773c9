"""`python scripts/compare.py <run> <run> …`: settings that differ, scores side by side, curves over each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.json_lines import new_file
from blip2_train.cli.terminal import run_command
from blip2_train.system.screen import echo, make_console

if TYPE_CHECKING:
    from blip2_train.evaluation.comparison.runs import ComparedRun
    from blip2_train.evaluation.comparison.tables import ComparedRow

ABOUT = """\
Compare trainings, or evaluations: the settings in which they differ and their scores side by side. --output
writes a page (one HTML file that loads nothing) with the curves over each other, too."""
EXAMPLES = """\
examples:
  python scripts/compare.py outputs/demo_stage1/<run> outputs/demo_stage1/<other run>
  python scripts/compare.py outputs/demo_stage1/* --output comparison.html"""
MOST_SETTINGS = 40
"""Settings that a terminal shows."""


def main(arguments: list[str]) -> None:
    """Print both tables, and write the page if it is asked for."""
    options = _parser().parse_args(arguments)
    from blip2_train.evaluation.comparison.page import write_comparison  # load torch, which help does not need
    from blip2_train.evaluation.comparison.runs import read_runs
    from blip2_train.evaluation.comparison.tables import differing_settings, score_rows

    page = None if options.output is None else new_file(options.output, options.overwrite)
    runs = read_runs([_folder(name) for name in options.runs])
    for number, run in enumerate(runs, 1):
        echo(f"{number}: {run.name}  ({run.folder})")
    scores, settings = score_rows(runs), differing_settings(runs)
    if scores:
        _print("scores (* = the best)", runs, scores)
    shown = settings[:MOST_SETTINGS]
    if shown:
        _print("settings that differ", runs, shown)
    rest = f"; {len(shown)} are shown, --output FILE has all" if len(shown) < len(settings) else ""
    echo(f"{len(settings)} settings differ{rest}")
    if page is not None:
        echo(f"page: {write_comparison(page, runs)}")


def _folder(name: str) -> Path:
    """The run folder that a name stands for; `last:<recipe>` is the one of the newest checkpoint."""
    if not name.startswith("last:"):
        path = Path(name).expanduser()
        return path.parent if path.name == "export" else path
    from blip2_train.training.earlier_runs import find_checkpoint, run_folder_of

    return run_folder_of(find_checkpoint(name, "outputs", "", setting=""))


def _print(title: str, runs: Sequence[ComparedRun], rows: Sequence[ComparedRow]) -> None:
    """A table, the runs by number; values fold where the terminal is narrow, and are never cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, header_style="dim", pad_edge=False)
    table.add_column("", overflow="fold", min_width=min(30, max(len(row.label) for row in rows)))
    for number, _ in enumerate(runs, 1):
        table.add_column(str(number), justify="right", overflow="fold")
    for row in rows:
        values = (f"{value} *" if index in row.best else value for index, value in enumerate(row.values))
        table.add_row(Text(row.label), *(Text(value) for value in values))
    make_console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="compare.py", description=ABOUT, epilog=EXAMPLES)
    parser.add_argument(
        "runs", nargs="+", metavar="run", help="folder of a training or an evaluation, or last:<recipe>"
    )
    parser.add_argument("--output", metavar="FILE", help="HTML page to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it is there")
    return parser


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
