"""`python scripts/benchmark.py part=comparisons [option=value …]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from benchmark.comparisons.comparison import Comparison
from benchmark.comparisons.parts import PARTS
from benchmark.options import read_part
from blip2_train.config.key_values import READ
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo, make_console

SYNTAX = """\
  only=<a,b,…>       these parts (all of them if not given)
  json=<file>        write the ratios there, by name"""
_SCRIPTS = Path(__file__).parents[2]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.strip("[]").split(","))


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """Settings of the comparisons."""

    only: tuple[str, ...] = field(default=(), metadata={READ: _names})
    json: Path | None = None

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in PARTS:
                raise ConfigError(f"only={name}: there is no such part; there are {', '.join(PARTS)}")
        if self.json is not None and not self.json.parent.is_dir():
            raise ConfigError(f"json={self.json}: there is no folder {self.json.parent}")


def compare(arguments: Sequence[str]) -> None:
    """Measure, print one table, and write the ratios if asked to; a target that is missed is no error.

    Raises:
        ConfigError: if an option cannot be used.
    """
    options = read_part(arguments, ComparisonOptions, part="comparisons")
    measured: list[Comparison] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="blip2_comparisons_") as folder:
        for name in options.only or PARTS:
            echo(f"comparing: {name}", file=sys.stderr, flush=True)
            compared, reason = _measure(name, Path(folder) / f"{name}.json")
            measured += compared
            if reason:
                missing.append(f"{name}: {reason}; without {', '.join(PARTS[name].names)}")
    make_console(width=None if sys.stdout.isatty() else 150).print(as_table(measured))
    for line in missing:
        echo(line)
    if options.json is not None:
        ratios = {comparison.name: comparison.ratio for comparison in measured}
        options.json.write_text(json.dumps(ratios, indent=1) + "\n", encoding="utf-8")


def as_table(measured: Sequence[Comparison]) -> Table:
    """What, ours, other, ratio, target, held."""
    table = Table("what", "ours", "other", "ratio", "target", "held")
    for one in measured:
        target = f"{one.bound} {one.target:g}"
        table.add_row(one.what, one.ours, one.other, f"{one.ratio:.3f}", target, "yes" if one.held else "no")
    return table


def _measure(name: str, path: Path) -> tuple[list[Comparison], str]:
    """A part's comparisons, measured on one thread in a process of its own; and why there are none."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join([str(_SCRIPTS), *sys.path])}
    command = [sys.executable, "-m", "benchmark.comparisons", name, str(path)]
    limit = PARTS[name].seconds
    try:
        done = subprocess.run(command, env=environment, timeout=limit, stdout=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return [], f"not finished after {limit:.0f} s"
    if done.returncode or not path.is_file():
        return [], f"ended with exit code {done.returncode}"
    return [Comparison(**fields) for fields in json.loads(path.read_text("utf-8"))], ""
