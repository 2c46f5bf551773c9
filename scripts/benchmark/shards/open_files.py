"""Reading many shards in random order: what stays open, and what opening them again costs."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from benchmark.record import Record, ratios
from blip2_train.data.sources.shard_source import ShardSource

_FEW = 20
"""Shards that stay open all the time, for comparison."""
_TURNS = 5


def measure_open_files(folder: Path, index: Path, shards: int) -> Record:
    """Read a sample of each of `shards` shards in random order, and as many of few shards.

    Returns:
        Descriptors and mappings that came with reading; microseconds of a sample when its shard has to be opened, and
        how many times longer that is than from a shard that is open.
    """
    source = ShardSource(str(folder), "s", index)
    source.read(0)
    before = in_use()
    each = len(source) // source.files
    seconds: dict[str, list[float]] = {"many": [], "few": []}
    for turn in range(_TURNS + 1):  # the first warms up
        order = random.Random(turn).sample(range(shards), shards)
        for name, numbers in (("many", order), ("few", [number % _FEW for number in order])):
            began = time.process_time()
            for number in numbers:
                source.read(number * each)
            if turn:
                seconds[name].append((time.process_time() - began) / shards)
    after = in_use()
    return {
        "shards": shards,
        "descriptors": after[0] - before[0],
        "mappings": after[1] - before[1],
        "microseconds": {name: 1e6 * min(times) for name, times in seconds.items()},
        "times_longer": ratios(seconds["many"], seconds["few"]),
    }


def in_use(process: int | str = "self") -> tuple[int, int]:
    """File descriptors and memory mappings of a process."""
    with open(f"/proc/{process}/maps", encoding="utf-8") as maps:
        return len(os.listdir(f"/proc/{process}/fd")), sum(1 for _ in maps)
