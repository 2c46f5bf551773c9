"""Any number of shards in little room."""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmark.loader.photographs import write_photographs
from blip2_train.data.shards.shard_lists import INDEX

SAMPLES = 2
"""Of each shard."""
_LINKS = 1000
"""Names of a file; file systems limit them."""


def write_linked_shards(folder: Path, count: int) -> Path:
    """`count` shards of two small images, and the `index.json` that `make_shards` would write.

    They are hard links to few files. To whoever opens or reads them, each is a shard of its own, with its own path and
    its own index; only the content repeats.
    """
    folder.mkdir(parents=True)
    listed = []
    for number in range(count):
        path = folder / f"{number:06d}.tar"
        if number % _LINKS == 0:
            first = write_photographs(path, (32, 24), SAMPLES)
            size = first.stat().st_size
        else:
            os.link(first, path)
        listed.append({"file": path.name, "samples": SAMPLES, "bytes": size})
    (folder / INDEX).write_text(json.dumps({"samples": count * SAMPLES, "shards": listed}), encoding="utf-8")
    return folder
