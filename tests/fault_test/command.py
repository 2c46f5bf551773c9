"""`bash run_scripts/fault_test.sh [only=<words>] [rows=<n>]`: bad input and bad days, with the real commands."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
_INTERPRETER = TESTS / "support" / "interpreter"
ABOUT = """\
Give the real commands bad input of each kind, and bad days: signals, full disks, two runs in one folder, storage that
fails. Prints a row each: what was done, what came out (exit code and the line), and whether that is what has to come:
the right exit code, one line that names the thing and the fix, no traceback, nothing lost, in bounded time.
Ends with 1 if a row does not hold. All data is made for it, in a temporary folder. Linux only.

usage: bash run_scripts/fault_test.sh [option=value …]

  only=<words>     rows whose group or name holds all these words; of several choices one: only=signals,days
  rows=<n>         so many rows, from the first
  jobs=<n>         rows at once (one per core)
  --list           the rows, without running them
  --help           this text

Each command runs in a process of its own, forked from an interpreter that has loaded what commands import; rows with
"cold" in the list start a new interpreter."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which rows, and how many at once."""

    only: str = ""
    rows: int | None = None
    jobs: int | None = None


def prepare() -> None:
    """Give this process and those that it starts what the tests give theirs: no network, one thread."""
    for folder in (TESTS / "integration", TESTS / "support", TESTS, TESTS.parent, _INTERPRETER):
        sys.path.insert(0, str(folder))
    sys.modules.pop("sitecustomize", None)
    __import__("sitecustomize")
    given = [str(_INTERPRETER), os.environ.get("PYTHONPATH", "")]
    os.environ.update(
        PYTHONPATH=os.pathsep.join(filter(None, given)),
        HF_HUB_OFFLINE="1",
        WANDB_MODE="offline",
        OMP_NUM_THREADS="1",
        TOKENIZERS_PARALLELISM="false",
    )
    os.environ.pop("BLIP2_TRACEBACK", None)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's jobs in the background ignore it, and hand it on
    import warm_process

    warm_process.serve_until_the_end()


def main(arguments: list[str]) -> int:
    """Run the chosen rows; the exit code."""
    if {"--help", "-h"} & set(arguments):
        print(ABOUT)
        return 0
    if not sys.platform.startswith("linux"):
        print(f"error: {sys.platform} cannot be used; see --help", file=sys.stderr)
        return 2
    prepare()
    from blip2_train.config.key_values import read_settings
    from blip2_train.errors import ConfigError

    try:
        settings = [argument for argument in arguments if argument != "--list"]
        (options,) = read_settings(settings, (Options,), "bash run_scripts/fault_test.sh")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from fault_test.rows import load_rows

    choices = [choice.split() for choice in options.only.lower().split(",")]
    names = {row: f"{row.group}: {row.name}".lower() for row in load_rows()}
    rows = [row for row, name in names.items() if any(all(word in name for word in choice) for choice in choices)]
    rows = rows[: options.rows]
    if "--list" in arguments or not rows:
        for row in rows:
            print(f"{row.group}: {row.name}{' (cold)' if row.cold else ''}")
        print(f"{len(rows)} rows")
        return 0 if rows else 2
    return _run(rows, max(1, options.jobs or len(os.sched_getaffinity(0))))


def _run(rows: list, jobs: int) -> int:
    from fault_test.running import run_rows
    from fault_test.world import make_world

    began, failed = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="blip2-faults-", ignore_cleanup_errors=True) as folder:
        world = make_world(Path(folder) / "world")
        print(f"the world is made, {time.monotonic() - began:.0f} s; {len(rows)} rows, {jobs} at once", flush=True)
        for number, result in enumerate(run_rows(rows, world, jobs), 1):
            held = "held" if result.held else "DID NOT HOLD"
            row = result.row
            print(f"{number:3}  {held}  {row.group}: {row.name}  ({result.seconds:.1f} s)", flush=True)
            print(f"     {result.outcome}", flush=True)
            failed += [] if result.held else [f"{row.group}: {row.name}"]
    print(f"{len(rows) - len(failed)} of {len(rows)} rows held, {time.monotonic() - began:.0f} s")
    for name in failed:
        print(f"  did not hold: {name}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
