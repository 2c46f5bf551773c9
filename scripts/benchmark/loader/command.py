"""`python scripts/benchmark.py part=loader [option=value …]`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmark.loader.access import measure_access, write_shards
from benchmark.loader.options import LoaderOptions, read_options
from benchmark.loader.photographs import write_photographs
from benchmark.loader.reading import open_data
from benchmark.loader.resuming import measure_resuming
from benchmark.loader.speed import measure_speed
from benchmark.loader.table import access_table, resuming_table, speed_table, waiting_table
from benchmark.loader.waiting import measure_waiting
from benchmark.record import Record
from blip2_train.data.sources.config import SourceConfig
from blip2_train.system.screen import echo, make_console


def measure_loader(arguments: Sequence[str]) -> None:
    """Measure reading, print tables, and write JSON if asked to.

    Raises:
        ConfigError: if an option cannot be used.
        ShardError: if the given shards cannot be read.
    """
    options = read_options(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="blip2_loader_") as folder:
            record = _measure(options, Path(folder))
    finally:
        torch.set_num_threads(threads)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _measure(options: LoaderOptions, folder: Path) -> Record:
    console = make_console(width=None if sys.stdout.isatty() else 130)
    about: Record = {"what": "reading", "torch": torch.__version__, "cores": os.cpu_count()}
    about |= {"batch_size": options.batch_size, "image_size": options.image_size}
    if options.access:
        _say("reading by way of access")
        given = SourceConfig(path=options.source, name="given") if options.source else None
        access = measure_access(given or write_shards(folder / "shards", options), options, folder / "cache")
        console.print(access_table(access))
        return {**about, "access": access}
    sources = _sources(options, folder)
    speed = {}
    for size, source in sources.items():
        _say(f"reading {size}")
        speed[size] = measure_speed(source, options)
    console.print(speed_table(speed))

    paths = [str(source.path) for source in sources.values()]
    everything = SourceConfig(path=paths[0] if len(paths) == 1 else paths, name="images")
    each = [record["ways"]["loader"]["seconds_per_image"] for record in speed.values()]
    _say("waiting")
    waiting = measure_waiting(everything, options)
    console.print(waiting_table(waiting))
    plan = open_data(everything, options, options.steps, num_workers=1).plan()
    for line in plan.lines():
        console.print(line, highlight=False)

    _say("resuming")
    resuming = measure_resuming(everything, options)
    console.print(resuming_table(resuming, options.samples, len(each) / sum(each)))
    results = {"speed": speed, "waiting": waiting, "resuming": resuming, "waiting_bytes": plan.waiting_bytes}
    return {**about, "samples": options.samples, **results}


def _sources(options: LoaderOptions, folder: Path) -> dict[str, SourceConfig]:
    """What to read, by the name in the table."""
    if options.source is not None:
        return {"given": SourceConfig(path=options.source, name="given")}
    sources = {}
    for width, height in options.sizes:
        size = f"{width}x{height}"
        _say(f"making {options.images} photographs of {size}")
        shard = write_photographs(folder / f"{size}.tar", (width, height), options.images)
        sources[size] = SourceConfig(path=str(shard), name=size)
    return sources


def _say(text: str) -> None:
    echo(text, file=sys.stderr, flush=True)
