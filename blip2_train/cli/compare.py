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
WIDEST = 24
"""Characters of a value that are kept in one line where others need the room."""
NARROWEST = 12
"""Characters at which values may fold, so that all runs fit beside each other."""


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
        _print("scores (* = the best)", runs, scores)
    shown = settings[:MOST_SETTINGS]
    if shown:
        _print("settings that differ", runs, shown)
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


def _print(title: str, runs: Sequence[ComparedRun], rows: Sequence[ComparedRow]) -> None:
    """A table of as many runs as fit beside each other, and one below it for the others; long values fold."""
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    texts = [[f"{text} *" if index in row.best else text for index, text in enumerate(row.values)] for row in rows]
    labels = min(max(len(row.label) for row in rows), console.width // 2)
    needed, room = [max(map(len, column)) for column in zip(*texts, strict=True)], console.width - labels
    together = fold_width(needed, room) >= min(NARROWEST, max(needed))
    groups = [list(range(len(needed)))] if together else groups_that_fit([min(WIDEST, n) + 2 for n in needed], room)
    for group in groups:
        most = fold_width([needed[index] for index in group], room)
        table = Table(title=title, title_justify="left", box=None, header_style="dim", pad_edge=False)
        table.add_column("", overflow="fold", min_width=labels)
        for index in group:
            table.add_column(str(index + 1), justify="right", overflow="fold", max_width=max(1, most))
        for row, line in zip(rows, texts, strict=True):
            table.add_row(Text(row.label), *(Text(line[index]) for index in group))
        console.print(table)


def fold_width(widths: Sequence[int], room: int) -> int:
    """The most characters of a line, at which columns fit into the room, two blanks in front of each.

    Example:
        >>> fold_width([60, 60], 44), fold_width([60, 5], 44), fold_width([9, 5], 44)
        (20, 35, 9)
    """
    fitting = (most for most in range(max(widths), 0, -1) if sum(min(most, width) + 2 for width in widths) <= room)
    return next(fitting, 0)


def groups_that_fit(widths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of columns in groups whose widths fit into the room; one that does not fit at all is alone.

    Example:
        >>> groups_that_fit([4, 4, 9, 30, 2], 12)
        [[0, 1], [2], [3], [4]]
    """
    groups: list[list[int]] = [[]]
    for index, width in enumerate(widths):
        if groups[-1] and sum(widths[other] for other in groups[-1]) + width > room:
            groups.append([])
        groups[-1].append(index)
    return groups


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
