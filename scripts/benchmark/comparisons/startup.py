"""What commands load and take before they do anything: help, lists, a printed configuration."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.comparisons.comparison import Comparison

SCRIPTS = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "lightning")
COMMANDS = (
    "train", "evaluate", "export", "check", "doctor", "describe", "predict", "convert_checkpoint", "score", "prepare",
    "make_shards", "capfilt", "features", "compare", "app", "benchmark", "study", "house", "versions",
    "real_parts",
)  # fmt: skip
"""Files in `scripts/` that take `--help` and `--version`."""
WITH_LISTS = ("train", "evaluate", "check", "doctor", "describe", "features", "benchmark")
TURNS = 3
CONFIGURATION = ("train.py", "experiment=stage1_vit_g", "--cfg", "job")
_REPORT = """\
import atexit, os, runpy, sys
atexit.register(lambda: os.write(2, ("\\n" + ",".join(name for name in {heavy!r} if name in sys.modules)).encode()))
sys.argv = sys.argv[1:]
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def compare() -> list[Comparison]:
    """Heavy libraries loaded by help and lists, and the processor time of a printed configuration."""
    every = requests()
    heavy = [" ".join(request) for request in every if heavy_imports(*request)]
    pairs = [
        (_seconds(str(SCRIPTS / CONFIGURATION[0]), *CONFIGURATION[1:]), _seconds("-c", "import torch"))
        for _ in range(TURNS)
    ]
    ours, other = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return [
        Comparison(
            name="help_heavy_imports",
            what=f"help, lists and versions that load {', '.join(HEAVY)}",
            ours=f"{len(heavy)} of {len(every)}" + (f": {'; '.join(heavy)}" if heavy else ""),
            other="none",
            ratio=float(len(heavy)),
            target=0.0,
        ),
        Comparison(
            name="cfg_vs_import_torch",
            what=f"{' '.join(CONFIGURATION)}, processor time",
            ours=f"{ours:.2f} s",
            other=f"{other:.2f} s, import torch",
            ratio=ours / other,
            target=1.3,
        ),
    ]


def requests() -> list[tuple[str, str]]:
    """A command and what it is asked for: all that should be answered at once."""
    always = [(command, option) for command in COMMANDS for option in ("--help", "--version")]
    return always + [(command, "--list") for command in WITH_LISTS]


def heavy_imports(command: str, *arguments: str) -> list[str]:
    """The heavy libraries that a command has loaded when it ends.

    Raises:
        RuntimeError: if the command fails.
    """
    script = _REPORT.format(heavy=HEAVY, folder=str(SCRIPTS))
    done = _run(["-c", script, str(SCRIPTS / f"{command}.py"), *arguments])
    if done.returncode:
        line = " ".join([f"{command}.py", *arguments])
        raise RuntimeError(f"{line} ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return [name for name in done.stderr.rpartition("\n")[2].split(",") if name]


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS.parent), *sys.path])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=SCRIPTS.parent
    )


def _seconds(*arguments: str) -> float:
    """Processor time of a Python process, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _run(arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
