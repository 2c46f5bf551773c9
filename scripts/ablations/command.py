"""`python scripts/ablate.py [option=value …]`: the paper's ablations on the embedded world."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.options import SYNTAX, read_options
from blip2_train.cli.terminal import run_command
from blip2_train.system.atomic_write import write_atomically
from blip2_train.system.screen import echo, make_console

if TYPE_CHECKING:
    from ablations.record import Record
    from ablations.running import Launch

NAME = "ablations"
ABOUT = f"""\
Ablate two parts of the paper on the embedded world: stage 1 without ITG (Table 6), by retrieval, and stage 2 without
stage 1 (Figure 5), by captions. Every number comes from the ordinary commands train.py and evaluate.py. Repeated, the
command keeps what is finished and goes on with what was stopped.

usage: python scripts/ablate.py [option=value …] [key=value …]

{SYNTAX}"""


def main(arguments: list[str], launch: Launch | None = None) -> None:
    """Make all runs that are not finished, and write and print their results.

    Args:
        arguments: Of the command line.
        launch: Runs a command; None = in a process of its own.
    """
    if {"--help", "-h"} & set(arguments):
        echo(ABOUT)
        return
    options = read_options(arguments)
    from ablations.plan import make_plan  # these load torch, which help does not need
    from ablations.record import read_record
    from ablations.running import is_finished, launch_child, make

    plan = make_plan(options)
    finished = {run.folder for run in plan.runs if is_finished(run)}  # of all, before the first starts
    for number, run in enumerate(plan.runs, 1):
        state = "finished before" if run.folder in finished else "runs now"
        echo(f"== {number} of {len(plan.runs)}: {run.folder} {state}", flush=True)
        if run.folder not in finished:
            make(run, launch or launch_child)
    _write(read_record(plan), plan.folder)


def _write(record: Record, folder: Path) -> None:
    from ablations.chart import draw
    from ablations.report import as_markdown, as_tables

    paths = {
        "scores": write_atomically(folder / f"{NAME}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n"),
        "tables": write_atomically(folder / f"{NAME}.md", as_markdown(record)),
        "chart": draw(record, folder / f"{NAME}.png"),
    }
    make_console().print(as_tables(record))
    for name, path in paths.items():
        echo(f"{name + ':':12}{path}")


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
