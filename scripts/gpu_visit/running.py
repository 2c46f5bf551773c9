"""Runs one part in a process of its own, which ends with all that it started at its time limit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_visit.options import ROOT, VisitOptions, as_arguments
from gpu_visit.results import read_rows

_ERROR = re.compile(r"[\w.]+(Error|Exception|Failed|Interrupt)\b")
"""How the lines that name an error begin."""
SKIPPED = 3
"""Exit code of a part that cannot be measured here; its last line says why."""


def run_part(
    name: str, options: VisitOptions, seconds: float, environment: Mapping[str, str], out: Path
) -> dict[str, Any]:
    """Measure a part for `seconds` at most.

    Returns:
        `state` (done, skipped, failed or stopped), `reason`, `seconds` and `rows`, those written before it was stopped.
    """
    rows, log = out / f"{name}.jsonl", out / f"{name}.log"
    for path in (rows, log):
        path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "gpu_visit.part", name, str(rows), *as_arguments(options)]
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text("utf-8", "replace")
    state = {None: "stopped", 0: "done", SKIPPED: "skipped"}.get(code, "failed")
    lines = [line for line in text.splitlines() if line.strip()]
    if state == "failed":
        lines = [line for line in lines if _ERROR.match(line)] or lines
    reason = {"stopped": f"at its limit of {seconds:.0f} s", "done": ""}.get(
        state, lines[-1] if lines else f"exit code {code}"
    )
    part = {"state": state, "reason": reason, "seconds": round(time.monotonic() - began, 1), "rows": read_rows(rows)}
    with (out / "visit.log").open("a", encoding="utf-8") as whole:
        whole.write(f"==== {name}: {state} {reason}\n{text[-20_000:]}\n")
    for path in (rows, log):
        path.unlink(missing_ok=True)
    return part
