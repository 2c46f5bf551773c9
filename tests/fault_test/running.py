"""Runs rows, and reports for each whether it held."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fault_test.desk import Desk
from fault_test.table import Row
from fault_test.world import World


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a row."""

    row: Row
    outcome: str
    held: bool
    seconds: float


def run_row(row: Row, world: World) -> Result:
    """Run one row in a folder of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="row-", dir=world.folder.parent, ignore_cleanup_errors=True) as folder:
        desk = Desk(world, Path(folder))
        before = world.state()
        try:
            outcome, held = row.action(desk), True
            if lost := desk.lost():
                raise AssertionError(f"lost or changed: {', '.join(map(desk.short, lost))}")
            if before != (after := world.state()):
                changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
                raise AssertionError(f"it changed what is not its own: {', '.join(changed)}")
        except AssertionError as error:
            outcome, held = desk.short(str(error)), False
        except Exception as error:  # a row that cannot be run does not hold
            outcome, held = f"the row itself failed: {type(error).__name__}: {error}", False
    return Result(row=row, outcome=outcome, held=held, seconds=time.monotonic() - began)


def run_rows(rows: Sequence[Row], world: World, jobs: int) -> Iterator[Result]:
    """Run rows, some at a time, each as it ends."""
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(run_row, row, world) for row in rows]):
            yield done.result()
