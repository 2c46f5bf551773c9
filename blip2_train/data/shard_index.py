"""A kept index of each shard, so that any sample is reached by its offset."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from blip2_train.data.order import stable_seed
from blip2_train.data.shards import scan_shard
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

_LOGGER = logging.getLogger(__name__)
_VERSION = 1
"""Part of every file name: raised when the meaning of the files changes."""


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Where the samples of one shard lie."""

    shard: Path
    rows: Path
    """`.npy` file of the rows that `scan_shard` gives; opened as a memory map, so that processes share it."""
    samples: int
    size: int
    """Bytes of the shard."""
    rejected: tuple[RejectedSample, ...]


def index_folder() -> Path:
    """The user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`), or a temporary one where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "blip2_train" / "shards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"blip2_train-shards-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def index_shards(shards: Sequence[Path], folder: Path, threads: int = 8) -> list[ShardIndex]:
    """The index of each shard; scanned once (about 13,000 tar members a second and core), then read from `folder`.

    A file of the index is named after the shard's path, size and time of change, so a changed shard is scanned again.

    Args:
        shards: tar files.
        folder: where the index is kept.
        threads: shards scanned at a time.

    Raises:
        ShardError: if a shard cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, min(threads, len(shards)))) as pool:
        return list(pool.map(lambda shard: _index_shard(shard, folder), shards))


def _index_shard(shard: Path, folder: Path) -> ShardIndex:
    try:
        state = shard.stat()
        stem = f"{stable_seed(_VERSION, shard.resolve(), state.st_size, state.st_mtime_ns):016x}"
        rows, summary = folder / f"{stem}.npy", folder / f"{stem}.json"
        if not (summary.exists() and rows.exists()):
            _LOGGER.info("indexing %s", shard)
            table, rejected = scan_shard(shard)
            _write(rows, table)
            _write(summary, {"samples": len(table), "rejected": [asdict(sample) for sample in rejected]})
        known = json.loads(summary.read_text(encoding="utf-8"))
    except OSError as error:
        raise ShardError(f"shard {shard} cannot be indexed: {error}") from None
    return ShardIndex(
        shard=shard,
        rows=rows,
        samples=known["samples"],
        size=state.st_size,
        rejected=tuple(RejectedSample(**sample) for sample in known["rejected"]),
    )


def _write(path: Path, content: np.ndarray | dict[str, object]) -> None:
    """Write a file that is there as a whole or not at all, whoever else writes it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    with os.fdopen(handle, "wb") as file:
        if isinstance(content, dict):
            file.write(json.dumps(content).encode())
        else:
            np.save(file, content)
    os.replace(temporary, path)
