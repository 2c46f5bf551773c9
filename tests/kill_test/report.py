"""The results of a kill test, for a reader and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from blip2_train.system.atomic_write import write_atomically
from blip2_train.system.screen import echo, make_console
from kill_test.parts import Part
from kill_test.watching import COLUMNS, COMMAND_COLUMNS, CommandKill

RECORD = "kill_test.json"


def show(part: Part) -> None:
    """A row for each kill, and a line for everything that was compared."""
    table = Table(title=part.name, title_justify="left", box=None, header_style="dim", pad_edge=False)
    commands = [kill for kill in part.kills if isinstance(kill, CommandKill)]
    for column in ("", *(COMMAND_COLUMNS if commands else COLUMNS)):
        table.add_column(column, justify="left" if column in ("command", "moment") else "right")
    for number, kill in enumerate(part.kills, 1):
        table.add_row(str(number), *map(str, kill.row()))
    make_console().print(table)
    kinds = Counter(kill.command if isinstance(kill, CommandKill) else kill.moment.kind for kill in part.kills)
    left = sum(kill.unfinished > 0 if isinstance(kill, CommandKill) else kill.cut for kill in part.kills)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    what = "files that are not finished" if commands else "a checkpoint half written"
    echo(f"{len(part.kills)} kills ({listed}), {left} left {what}")
    for what, differences in part.problems.items():
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        echo(f"  {what}: {'DIFFERENT: ' + '; '.join(differences[:5]) + more if differences else 'as it has to be'}")


def write_record(folder: Path, parts: Sequence[Part], seconds: float) -> Path:
    """Write all of it to `kill_test.json`."""
    record = {"seconds": round(seconds, 1), "parts": {part.name: asdict(part) for part in parts}}
    return write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")
