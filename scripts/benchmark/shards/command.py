"""`python scripts/benchmark.py part=shards [option=value …]`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmark.shards.linked_shards import SAMPLES, write_linked_shards
from benchmark.shards.open_files import measure_open_files
from benchmark.shards.opening import measure_opening
from benchmark.shards.options import read_options
from benchmark.shards.requests import measure_requests
from benchmark.shards.table import open_files_table, opening_table, requests_table
from blip2_train.system.screen import echo, make_console


def measure_shards(arguments: Sequence[str]) -> None:
    """Measure many shards, print tables, and write JSON if asked to.

    Raises:
        ConfigError: if an option cannot be used.
    """
    options = read_options(arguments)
    console = make_console(width=None if sys.stdout.isatty() else 110)
    with tempfile.TemporaryDirectory(prefix="blip2_shards_") as folder:
        shards, index = Path(folder) / "shards", Path(folder) / "index"
        _say(f"writing {options.shards:,} shards of {SAMPLES} samples (links), and opening them for the first time")
        write_linked_shards(shards, options.shards)
        opening = measure_opening(shards, index, options.turns)
        console.print(opening_table(opening, options.shards))
        _say(f"reading {options.random:,} shards in random order")
        files = measure_open_files(shards, index, options.random)
        console.print(open_files_table(files))
    requests = measure_requests()
    console.print(requests_table(requests))
    if options.json is not None:
        results = {"shards": options.shards, "opening": opening, "open_files": files, "requests": requests}
        about = {"what": "many shards", "cores": os.cpu_count()}
        options.json.write_text(json.dumps({**about, **results}, indent=1) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    echo(text, file=sys.stderr, flush=True)
