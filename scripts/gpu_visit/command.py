"""`python scripts/gpu_visit.py [setting=value …]` and `… pack`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gpu_visit.options import ROOT, OptionError, VisitOptions, read_options
from gpu_visit.packages import folder_of, pack, unpack_missing
from gpu_visit.parts import PARTS
from gpu_visit.report import write_report
from gpu_visit.running import run_part

USAGE = f"""Measure and test this project on a GPU in nine minutes; results are in <out>/visit.json and visit.md.

  pack [python=3.12]   download small wheels for a machine without network, into <packed>
  device=cuda|cpu      where to run (cuda)
  size=full|small      the paper's models, or the demo's to rehearse (full)
  parts=<a,b,…>        {", ".join(PARTS)} (all, in this order)
  out=<folder>         of the results (outputs/gpu_visit)
  packed=<folder>      of the wheels (outputs/gpu_visit/packed)
  minutes=<n>          time limit of the whole visit (9)"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code: 0 also if a part failed, because the table says so."""
    try:
        if {"--help", "-h"} & set(arguments):
            print(USAGE)
        elif arguments and arguments[0] == "pack":
            pack(arguments[1:])
        else:
            visit(read_options(arguments))
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def visit(options: VisitOptions) -> None:
    """Run the parts one after the other, and write the results after each.

    Raises:
        OptionError: if a part is unknown, or there is no such device.
    """
    names = [name for name in options.parts.split(",") if name] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        raise OptionError(f"parts={unknown[0]} is unknown; there are {', '.join(PARTS)}")
    if options.device == "cuda" and not _has_gpu():
        raise OptionError("torch sees no GPU; rehearse with device=cpu size=small")
    ends = time.monotonic() + 60 * float(options.minutes)
    out = Path(options.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    (out / "visit.log").write_text("", encoding="utf-8")
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="blip2_wheels_") as folder:
        unpacked = unpack_missing(Path(options.packed), Path(folder))
        print(f"unpacked: {', '.join(unpacked) or 'nothing'}", flush=True)
        for name in names:
            environment = _environment(Path(folder), PARTS[name].extra)
            limit = PARTS[name].seconds * (4 if options.device == "cpu" else 1)
            part = run_part(name, options, min(limit, ends - time.monotonic()), environment, out)
            results[name] = {"about": PARTS[name].about, **part}
            write_report(out, options, results)
            print(f"{name}: {part['state']} after {part['seconds']} s {part['reason']}", flush=True)
    print((out / "visit.md").read_text("utf-8"))


def _has_gpu() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _environment(folder: Path, extra: Sequence[str]) -> dict[str, str]:
    """Of a part: the unpacked packages come first, its extra ones last, and no hub is asked."""
    first = [folder_of("", folder), ROOT, ROOT / "scripts"]
    last = [folder_of(name, folder) for name in extra]
    paths = [*map(str, first), *filter(None, [os.environ.get("PYTHONPATH")]), *map(str, last)]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "KINETO_LOG_LEVEL": "5", "PYTHONUNBUFFERED": "1"}
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    return {**os.environ, **offline, **quiet, "PYTHONPATH": os.pathsep.join(paths)}
