"""`python scripts/study.py <name> [option=value …]`: a study of what matters in training, on the emoji scenes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.atomic_write import write_atomically
from blip2_train.system.screen import echo, make_console
from studies.definition import names, read_study
from studies.options import SYNTAX, read_options

if TYPE_CHECKING:
    from studies.record import Record
    from studies.running import Launch

ABOUT = f"""\
Train and score on the emoji scenes in several ways, with several seeds, and compare the ways with a baseline. Every
number comes from the ordinary commands train.py and evaluate.py. Each run is kept by its settings: the same command
goes on with what was stopped, and studies share the runs that they have in common.

usage: python scripts/study.py <study or file.yaml> [option=value …] [key=value …]

{SYNTAX}

studies: """


def main(arguments: list[str], launch: Launch | None = None) -> None:
    """Make all runs that are not finished, and write and print their results.

    Args:
        arguments: Of the command line.
        launch: Runs a command; None = in a process of its own.
    """
    if {"--help", "-h"} & set(arguments) or not arguments:
        echo(ABOUT + ", ".join(names()))
        return
    name, *rest = arguments
    if "=" in name or name.startswith("-"):
        raise ConfigError(f"the first argument names a study: {', '.join(names())}")
    study = read_study(name)
    options = read_options(rest, study)
    from studies.plan import make_plan  # these load torch, which help does not need
    from studies.record import read_record
    from studies.running import launch_child, make_all

    name = Path(name).stem
    plan = make_plan(name, study, options)
    make_all(plan.runs, options.jobs, launch or launch_child)
    _write(read_record(name, study, plan), plan.folder)


def _write(record: Record, folder: Path) -> None:
    from studies.chart import draw
    from studies.report import as_markdown, as_table

    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "scores": write_atomically(folder / "study.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n"),
        "table": write_atomically(folder / "study.md", as_markdown(record)),
        "figure": draw(record, folder / "study.png"),
    }
    make_console().print(as_table(record))
    for name, path in paths.items():
        echo(f"{name + ':':12}{path}")


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
