"""The first run of a recipe on the emoji scenes beside the second: processor time until the first step."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmark.comparisons.comparison import Comparison

_TURNS = 2
_SCRIPT = Path(__file__).parents[2] / "train.py"


def compare() -> list[Comparison]:
    """`debug=fast` of the demonstration's first stage, with fresh folders and then with the same ones again."""
    first, second = [], []
    for _ in range(_TURNS):
        with tempfile.TemporaryDirectory(prefix="blip2_first_run_") as folder:
            first.append(_seconds_to_first_step(Path(folder)))
            second.append(_seconds_to_first_step(Path(folder)))
    ours, other = statistics.median(first), statistics.median(second)
    return [
        Comparison(
            name="first_run_vs_second",
            what="debug=fast until its first step, the first time beside the second",
            ours=f"{ours:.1f} CPU s",
            other=f"{other:.1f} CPU s, the same command again",
            ratio=ours / other,
            target=1.5,
        )
    ]


def _seconds_to_first_step(folder: Path) -> float:
    """Processor time of a run and its processes until it reports its first step, when it is ended.

    The run stays in the process group of the part, with which it ends if the part is stopped before.

    Raises:
        RuntimeError: if it ends before.
    """
    arguments = ["experiment=demo_stage1", "debug=fast", f"paths.data_dir={folder}/data", f"paths.output_dir={folder}"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    before = _children()
    with subprocess.Popen(
        [sys.executable, str(_SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as run:
        assert run.stdout is not None
        lines = []
        for line in run.stdout:
            lines.append(line)
            if line.startswith("step 1/"):
                break
        else:
            raise RuntimeError("the run ended before its first step:\n" + "".join(lines[-20:]))
        run.kill()
    return _children() - before


def _children() -> float:
    """Processor time of all children that have ended, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
