"""Runs the training command in a process of its own, to be killed, and reads what such a run left."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments
from torch.distributed.run import get_args_parser
from warm_process import TESTS, WarmProcess, child_environment

_SHORT_END = [f"{name}=2" for name in ("--shutdown-timeout",) if name in get_args_parser().format_help()]
"""torch 2.11 does not have it: what is left of a run then takes 30 s to end."""
TORCHRUN = ("-m", "torch.distributed.run", "--local-addr=127.0.0.1", *_SHORT_END)


def write_data(folder: Path) -> Path:
    """Shards of unequal size in `folder` (26 samples: step 7 of 4 is inside the second epoch), and a tokenizer."""
    write_shards(folder / "shards", [9, 4, 13])
    write_tokenizer(folder / "tokenizer")
    return folder


def start(
    folder: Path,
    *overrides: str,
    base: Sequence[str] | None = None,
    kill_at: int | None = None,
    kill_by: signal.Signals = signal.SIGKILL,
    code: int = 0,
    processes: int = 1,
    other: bool = False,
    launcher: Sequence[str] = (),
) -> str:
    """Run the training command in a process of its own and wait for it; what it printed.

    Args:
        folder: Where its output goes.
        *overrides: Settings beside those of `base`.
        base: The command line of a small run; None = that of stage 1.
        kill_at: Step after which it kills itself.
        kill_by: The signal by which it does.
        code: The exit status that is expected.
        processes: How many train together.
        other: For the run that others are compared with, see `warm_process`.
        launcher: What starts it, as options of Python: `TORCHRUN` and its own. Others than `-m` start a new Python.
    """
    how: dict[str, Any] = {"processes": processes, "other": other, "launcher": launcher}
    process = begin(folder, *overrides, base=base, kill_at=kill_at, kill_by=kill_by, **how)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == code, output[-3000:] + errors[-3000:]
    assert "FutureWarning" not in errors, errors[-3000:]
    return output + errors


def begin(
    folder: Path,
    *overrides: str,
    base: Sequence[str] | None = None,
    kill_at: int | None = None,
    kill_by: signal.Signals = signal.SIGKILL,
    processes: int = 1,
    other: bool = False,
    launcher: Sequence[str] = (),
) -> subprocess.Popen[str] | WarmProcess:
    """The same without waiting."""
    folder.mkdir(exist_ok=True)
    record = f"{{_target_: training_child.Recorder, folder: '{folder}', kill_at: {kill_at or 'null'}, "
    record += f"kill_by: {int(kill_by)}}}"
    child, cache = str(TESTS / "integration/training_child.py"), str(folder.parent / "cache")
    together = ("trainer=ddp_cpu", f"trainer.devices={processes}") if processes > 1 else ()
    command = [child, *(base or arguments(folder)), f"callbacks.record={record}", *together, *overrides]
    if not launcher or launcher[0] == "-m":
        return WarmProcess([*launcher, *command], processes, other, XDG_CACHE_HOME=cache)
    return subprocess.Popen(
        [sys.executable, *launcher, *command],
        env=child_environment(XDG_CACHE_HOME=cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_folder(folder: Path) -> Path:
    """The only run folder below an output folder."""
    (run,) = folder.glob("demo_*/*")
    return run


def losses(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of metrics.csv by step and kind, as text: equal text is equal bits."""
    rows = list(csv.DictReader((run_folder(folder) / "metrics.csv").open()))
    kinds = {row["step"] + (" train" if row["train/loss"] else " val"): row for row in rows}
    assert len(kinds) == len(rows), "a step was logged twice"
    return {kind: {key: value for key, value in row.items() if value} for kind, row in sorted(kinds.items())}


def samples(folder: Path, ranks: int = 1) -> dict[int, list[str]]:
    """Sample ids of each step, the last time it was run; micro-batches and ranks together."""
    steps: dict[int, list[str]] = {}
    for rank in range(ranks):
        mine: dict[int, list[str]] = {}
        for line in (folder / f"samples.{rank}.jsonl").read_text().splitlines():
            step, ids = json.loads(line)
            mine[step] = ids
        for step, ids in mine.items():
            steps.setdefault(step, []).extend(ids)
    return steps


def assert_same_run(one: Path, other: Path, ranks: int = 1) -> None:
    """Losses, scores, samples and exported weights are bitwise equal."""
    assert samples(one, ranks) == samples(other, ranks)
    assert losses(one) == losses(other)
    a, b = (load_file(run_folder(folder) / "export" / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
