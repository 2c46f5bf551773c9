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
from blip2_train.system.tables import NumbersTable

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
    options = parser().parse_args(arguments)
    from blip2_train.evaluation.comparison.page import write_comparison  # load torch, which help does not need
    from blip2_train.evaluation.comparison.runs import read_runs
    from blip2_train.evaluation.comparison.tables import differing_settings, how_many, score_rows

    page = None if options.output is None else new_file(options.output, options.overwrite)
    runs = read_runs([_folder(name) for name in options.runs])
    for number, run in enumerate(runs, 1):
        echo(f"{number}: {run.name}  ({run.folder})")
        if run.state:
            echo(f"   {run.state}")
    scores, settings = score_rows(runs), differing_settings(runs)
    if scores:
        _print("scores (* = the best)", runs, scores, fold=False)
    shown = settings[:MOST_SETTINGS]
    if shown:
        _print("settings that differ", runs, shown, fold=True)
    rest = f"; {len(shown)} are shown, --output FILE has all" if len(shown) < len(settings) else ""
    echo(f"{how_many(settings)}{rest}")
    if page is not None:
        echo(f"page: {write_comparison(page, runs)}")


def _folder(name: str) -> Path:
    """The run folder that a name stands for; `last:<recipe>` is the one of the newest checkpoint."""
    if not name.startswith("last:"):
        path = Path(name).expanduser()
        return path.parent if path.name == "export" else path
    from blip2_train.training.earlier_runs import find_checkpoint, run_folder_of

    return run_folder_of(find_checkpoint(name, "outputs", "", setting=""))


def _print(title: str, runs: Sequence[ComparedRun], rows: Sequence[ComparedRow], fold: bool) -> None:
    """A table with a column for each run, in several tables if the terminal is too narrow; long texts fold."""
    columns = ["", *(str(number) for number in range(1, len(runs) + 1))]
    table = NumbersTable(columns, title=title, texts=range(1, len(columns)) if fold else ())
    for row in rows:
        table.add_row(row.label, *(f"{text} *" if index in row.best else text for index, text in enumerate(row.values)))
    make_console().print(table)


def parser() -> argparse.ArgumentParser:
    """The command's parser; a mistake raises `ConfigError`."""
    made = CommandParser(prog="compare.py", description=ABOUT, epilog=EXAMPLES)
    made.add_argument("runs", nargs="+", metavar="run", help="folder of a training or an evaluation, or last:<recipe>")
    made.add_argument("--output", metavar="FILE", help="HTML page to write")
    made.add_argument("--overwrite", action="store_true", help="replace the page if it is there")
    return made


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
