"""What a kill test has found, for a reader and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from blip2_train.cli.kill_test.parts import Part
from blip2_train.screen import echo, make_console
from blip2_train.whole_file import write_whole

RECORD = "kill_test.json"


def show(part: Part) -> None:
    """A row for each kill, and a line for everything that was compared."""
    table = Table(title=part.name, title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column in ("", "moment", "processes", "trained until", "checkpoint cut", "goes on from"):
        table.add_column(column, justify="left" if column == "moment" else "right")
    for number, kill in enumerate(part.kills, 1):
        row = (kill.moment.kind, kill.processes, kill.step, "yes" if kill.cut else "", kill.checkpoint)
        table.add_row(str(number), *map(str, row))
    make_console().print(table)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kill.moment.kind for kill in part.kills).items())
    echo(f"{len(part.kills)} kills ({kinds}), {sum(kill.cut for kill in part.kills)} left a checkpoint half written")
    for what, found in part.problems.items():
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        echo(f"  {what}: {'DIFFERENT: ' + '; '.join(found[:5]) + more if found else 'as it has to be'}")


def write_checked(folder: Path, parts: Sequence[Part], seconds: float) -> Path:
    """Write all of it to `kill_test.json`."""
    record = {"seconds": round(seconds, 1), "parts": {part.name: asdict(part) for part in parts}}
    return write_whole(folder / RECORD, json.dumps(record, indent=1) + "\n")
