"""`python scripts/benchmark.py part=comparisons [option=value …]`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
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
_ALL_SECONDS = 15 * 60.0
"""Time limit of all parts together."""


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

    The ratios are written after each part. Parts that do not begin within the time limit of all are named, and left
    out.

    Raises:
        ConfigError: if an option cannot be used, or the ratios cannot be written.
    """
    end = time.monotonic() + _ALL_SECONDS
    options = read_part(arguments, ComparisonOptions, part="comparisons")
    measured: list[Comparison] = []
    missing: list[str] = []
    _write(options.json, measured)  # whether it can be written is known before anything is measured
    with tempfile.TemporaryDirectory(prefix="blip2_comparisons_") as folder:
        for name in options.only or PARTS:
            compared: list[Comparison] = []
            reason = f"not begun, as the {_ALL_SECONDS / 60:g} minutes of all parts are over"
            if (left := end - time.monotonic()) > 0:
                echo(f"comparing: {name}", file=sys.stderr, flush=True)
                compared, reason = _measure(name, Path(folder) / f"{name}.json", min(PARTS[name].seconds, left))
            measured += compared
            _write(options.json, measured)
            if reason:
                missing.append(f"{name}: {reason}; without {', '.join(PARTS[name].names)}")
    make_console(width=None if sys.stdout.isatty() else 150).print(as_table(measured))
    for line in missing:
        echo(line)


def as_table(measured: Sequence[Comparison]) -> Table:
    """What, ours, other, ratio, target, held."""
    table = Table("what", "ours", "other", "ratio", "target", "held")
    for one in measured:
        target = f"{one.bound} {one.target:g}"
        table.add_row(one.what, one.ours, one.other, f"{one.ratio:.3f}", target, "yes" if one.held else "no")
    return table


def _write(path: Path | None, measured: Sequence[Comparison]) -> None:
    if path is None:
        return
    ratios = {comparison.name: comparison.ratio for comparison in measured}
    try:
        path.write_text(json.dumps(ratios, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"json={path} cannot be written ({error.strerror}); give another file") from None


def _measure(name: str, path: Path, limit: float) -> tuple[list[Comparison], str]:
    """A part's comparisons, measured on one thread in a process of its own; and why there are none.

    Whatever the part has started ends with it.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join([str(_SCRIPTS), *sys.path])}
    command = [sys.executable, "-m", "benchmark.comparisons", name, str(path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        return [], f"not finished after {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code or not path.is_file():
        return [], f"ended with exit code {code}"
    return [Comparison(**fields) for fields in json.loads(path.read_text("utf-8"))], ""
