"""`python scripts/benchmark.py part=watch <command> [argument …]`: how memory and open files of a command grow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from blip2_train.errors import ConfigError
from blip2_train.system.screen import make_console

COMMANDS = ("train", "evaluate", "predict", "score", "capfilt", "make_shards", "export")
_PAUSE = 0.2
"""Seconds between two looks."""
_FEWEST = 20
"""Looks at a process that are needed to report on it."""
_MB = 1e6


@dataclass(frozen=True)
class Look:
    """A process at a moment."""

    seconds: float
    private: int
    """Bytes of memory that it shares with no other."""
    descriptors: int
    mappings: int


def watch(arguments: Sequence[str]) -> None:
    """Run a command, look at all its processes until it ends, and print how they grew.

    Raises:
        ConfigError: if there is no such command, or it fails.
    """
    if not arguments or arguments[0] not in COMMANDS:
        raise ConfigError(f"part=watch needs the command that is watched and its arguments: {', '.join(COMMANDS)}")
    script = Path(__file__).parents[1] / f"{arguments[0]}.py"
    code, looks = watched([sys.executable, str(script), *arguments[1:]])
    make_console(width=None if sys.stdout.isatty() else 130).print(growth_table(looks))
    if code:
        raise ConfigError(f"{arguments[0]} ended with exit code {code}")


def watched(command: Sequence[str]) -> tuple[int, dict[int, list[Look]]]:
    """Run a command, and look at it and all that it starts until it ends; its exit code, and the looks by process."""
    running = subprocess.Popen(command)
    looks: dict[int, list[Look]] = {running.pid: []}
    began = time.perf_counter()
    while running.poll() is None:
        for process in _family(running.pid):
            if (look := _look(process, time.perf_counter() - began)) is not None:
                looks.setdefault(process, []).append(look)
        time.sleep(_PAUSE)
    return running.returncode, looks


def growth_table(looks: dict[int, list[Look]]) -> Table:
    """What each process had at quarters of its time, and the slopes of the last third; the first is the command's."""
    table = Table(
        title="memory, descriptors and mappings of each process",
        caption="memory: MB that a process shares with no other; at 1/4, 1/2, 3/4 and the end of its time; the slopes "
        "are straight lines through the last third",
        caption_justify="left",
    )
    for heading in (
        "process",
        "seconds",
        "memory",
        "MB a\nminute",
        "descriptors",
        "a\nminute",
        "mappings",
        "a\nminute",
    ):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for process, seen in looks.items():
        if len(seen) < _FEWEST:
            continue
        row = [
            "main" if process == next(iter(looks)) else f"child {process}",
            f"{seen[-1].seconds - seen[0].seconds:.0f}",
        ]
        for values, unit in (
            ([look.private for look in seen], _MB),
            ([look.descriptors for look in seen], 1),
            ([look.mappings for look in seen], 1),
        ):
            quarters = [values[(len(values) - 1) * part // 4] / unit for part in range(1, 5)]
            row += [" ".join(f"{value:.0f}" for value in quarters), f"{60 * slope(seen, values) / unit:+.2f}"]
        table.add_row(*row)
    return table


def slope(looks: Sequence[Look], values: Sequence[int]) -> float:
    """Growth of a value in a second: of the straight line that fits the last third best."""
    late = 2 * len(looks) // 3
    seconds = np.array([look.seconds for look in looks[late:]])
    return float(np.polyfit(seconds - seconds[0], np.array(values[late:], dtype=float), 1)[0])


def _family(process: int) -> list[int]:
    """A process and all that descend from it."""
    processes = [process]
    for one in processes:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                processes += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return processes


def _look(process: int, seconds: float) -> Look | None:
    """A process now; None if it has just ended."""
    folder = Path(f"/proc/{process}")
    try:
        resident, shared = (int(pages) for pages in (folder / "statm").read_text().split()[1:3])
        mappings = (folder / "maps").read_bytes().count(b"\n")
        private = (resident - shared) * os.sysconf("SC_PAGE_SIZE")
        return Look(seconds, private, len(os.listdir(folder / "fd")), mappings) if mappings else None
    except OSError:
        return None
