"""The tests marked `gpu`, the short ones first; the outcome of each is kept at once."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

from gpu_visit.options import ROOT, VisitOptions
from gpu_visit.results import Add, SkippedPart

FILES = ("tests/gpu", "tests/integration/test_on_a_gpu.py")


def measure(options: VisitOptions, add: Add) -> None:
    """Run pytest, whose plugin writes a row for each test."""
    if find_spec("pytest") is None:
        raise SkippedPart("pytest is absent: run `bash run_scripts/gpu_visit.sh pack` before, and bring the wheels")
    files = FILES[:1] if options.small else FILES
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "-p",
        "gpu_visit.outcomes",
        *files,
    ]
    environment = {**os.environ, "BLIP2_TEST_DEVICE": options.device, "BLIP2_VISIT_ROWS": sys.argv[2]}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with exit code {done.returncode}")
