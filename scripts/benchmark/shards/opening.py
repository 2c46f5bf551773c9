"""Opening many shards that were opened before, beside the plain way that looks at the index of each."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.record import Record, ratios
from blip2_train.data.order import stable_seed
from blip2_train.data.shards.index import _VERSION
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.data.sources.shard_source import ShardSource


def measure_opening(folder: Path, index: Path, turns: int) -> Record:
    """Time both ways in turn, in this process.

    Returns:
        Of each way, processor seconds and the bytes that a reader is sent; and the share of time that the kept list of
        all shards takes of the plain way's.
    """
    ways: dict[str, Callable[[], Any]] = {
        "each": lambda: _plain(folder, index),
        "list": lambda: ShardSource(str(folder), "s", index),
    }
    began = time.process_time()
    assert len(ways["list"]()) == 2 * len(ways["each"]()[0])  # both find the same; the index is made here
    first = time.process_time() - began
    busy: dict[str, list[float]] = {name: [] for name in ways}
    sent = {}
    for turn in range(turns):
        for name in ways if turn % 2 else reversed(ways):
            began = time.process_time()
            opened = ways[name]()
            busy[name].append(time.process_time() - began)
            sent[name] = len(pickle.dumps(opened))
            del opened
    share = ratios(busy["list"], busy["each"])
    return {"first_seconds": first, "busy": busy, "bytes_sent": sent, "share": share}


def _plain(folder: Path, index: Path) -> tuple[list[dict[str, Any]], list[str], list[Path]]:
    """As it was done before: every shard is looked at as a path, and its own index is opened.

    Returns:
        What is known of each shard, its name, and its path; all of it was sent to each reader.
    """
    shards = sorted(folder.glob("*.tar"))
    assert len(set(shards)) == len(shards) and not any(shard.suffix.lower() == ".gz" for shard in shards)
    paths = [PurePosixPath(shard.absolute()) for shard in shards]
    common = os.path.commonpath([path.parent for path in paths])
    names = [path.relative_to(common).with_suffix("").as_posix() for path in paths]
    listed = json.loads((folder / INDEX).read_bytes())["shards"]
    assert all((folder / entry["file"]).is_file() for entry in listed)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda shard: _one(shard, index), shards)), names, shards


def _one(shard: Path, index: Path) -> dict[str, Any]:
    state = shard.stat()
    stem = f"{stable_seed(_VERSION, shard.resolve(), state.st_size, state.st_mtime_ns):016x}"
    rows, summary = index / f"{stem}.npy", index / f"{stem}.json"
    assert summary.exists() and rows.exists()
    known = json.loads(summary.read_text(encoding="utf-8"))
    return {"shard": shard, "rows": rows, "samples": known["samples"], "size": state.st_size, "rejected": ()}
