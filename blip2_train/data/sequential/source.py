"""The shards of one source, for sequential reading."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.data.order import permutation
from blip2_train.data.printable_names import names_digest, printable_name
from blip2_train.data.sequential.pipes import PipeShard, is_pipe, pipe_shards
from blip2_train.data.sequential.shard_stream import AnyShard
from blip2_train.data.shards.index import relative_names
from blip2_train.data.shards.paths import find_shards
from blip2_train.data.shards.shard_lists import read_shard_lists
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.storage.remote import RemoteFile, Storage
from blip2_train.errors import ConfigError, ShardError
from blip2_train.types import RejectedSample


@dataclass(frozen=True, kw_only=True)
class SequentialSource:
    """A source before it is read: its shards and settings."""

    name: str
    shards: tuple[AnyShard, ...]
    """Shards to train on."""
    held_out: AnyShard | None
    """The last shard, if it is held out for validation; else None."""
    names: tuple[str, ...]
    """Name of each shard, the same on every machine."""
    weight: float
    """Share in the mixture, in any unit."""
    first_captions: int | None
    caption_key: str | None
    storage: Storage
    sizes: tuple[int, ...]
    """Bytes of each shard; 0 for the output of a command."""
    rejected: tuple[RejectedSample, ...]
    """Shards that an index lists and that are missing."""

    def __getstate__(self) -> dict[str, Any]:
        """The state sent to readers, compressed: names of shards are similar, so 100,000 take less than a megabyte."""
        lists = json.dumps([list(map(_plain, self.shards)), self.names]).encode()
        return {**self.__dict__, "shards": zlib.compress(lists, 6), "names": (), "sizes": (), "rejected": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shards, names = json.loads(zlib.decompress(state["shards"]))
        self.__dict__.update(state | {"shards": tuple(map(_shard, shards)), "names": tuple(names)})

    def share(self, seed: int, epoch: int, stream: int, streams: int) -> list[int]:
        """Indices of the shards that one of `streams` streams reads in an epoch; together they read each shard once."""
        order = permutation(len(self.shards), "shard order", seed, self.name, epoch)
        return [int(index) for index in order[stream::streams]]

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the shards, in order, and of the caption key."""
        contents = (f"{name}:{size}" for name, size in zip(self.names, self.sizes, strict=True))
        return names_digest([*contents, *([] if self.caption_key is None else [self.caption_key])])


def open_sequential(configs: Sequence[SourceConfig], hold_out: bool) -> list[SequentialSource]:
    """Find the shards of every source, without reading them.

    Args:
        configs: configurations of the sources.
        hold_out: hold out the last shard of the first source for validation.

    Raises:
        ConfigError: if a source has no shards, or weights or names are inconsistent.
        ShardError: if a source does not exist.
    """
    titles = [config.title for config in configs]
    for config in configs:
        if titles.count(config.title) > 1:
            raise ConfigError(f"two data sources are named {config.title!r}: give each its own name")
        if not config.reads_shards:
            raise ConfigError(
                f"data source {config.title!r} is no folder or list of tar shards, and data.access=sequential reads "
                "nothing else: leave it out, or make shards (make_shards.py)"
            )
        if config.weight is None and len(configs) > 1:
            raise ConfigError(
                f"data source {config.title!r} has no weight: with data.access=sequential sample counts are "
                "not known in advance, so give every source a weight"
            )
    return [_open(config, hold_out and position == 0) for position, config in enumerate(configs)]


def _open(config: SourceConfig, hold_out: bool) -> SequentialSource:
    storage = Storage(config.storage)
    given = [config.path] if isinstance(config.path, str) else [str(item) for item in config.path]
    shards: list[AnyShard] = [shard for item in given if is_pipe(item) for shard in pipe_shards(item)]
    missing: list[RejectedSample] = []
    if files := [item for item in given if not is_pipe(item)]:
        listed = find_shards(files, storage)
        missing = read_shard_lists(listed, storage)[1]
        shards = [*(Path(shard) if isinstance(shard, str) else shard for shard in listed), *shards]
    if len(set(shards)) < len(shards):
        twice = next(shard for shard in shards if shards.count(shard) > 1)
        raise ShardError(f"shard {twice} is listed twice: its samples would come twice per epoch; name it once")
    names = _names(shards)
    held_out = shards.pop() if hold_out else None
    if held_out is not None and (isinstance(held_out, PipeShard) or not shards):
        what = "is the output of a command" if shards else "is the only one"
        raise ConfigError(
            f"the last shard of {config.title!r} would be held out for validation, and {what}: give data.validation, "
            "or data.holdout=0 with validate_every=null"
        )
    if missing and storage.options.bad_shards == "stop":
        raise ShardError(f"{missing[0].source}: {missing[0].detail}, and it is not there: restore it")
    return SequentialSource(
        name=config.title,
        shards=tuple(shards),
        held_out=held_out,
        names=tuple(names[: len(shards)]),
        weight=config.weight or 1.0,
        first_captions=config.first_captions,
        caption_key=config.caption_column,
        storage=storage,
        sizes=tuple(map(_size, shards)),
        rejected=tuple(missing),
    )


def _size(shard: AnyShard) -> int:
    """Size in bytes; 0 for a command, whose output has no known size."""
    if isinstance(shard, PipeShard):
        return 0
    return shard.size if isinstance(shard, RemoteFile) else shard.stat().st_size


def _plain(shard: AnyShard) -> str | list[Any]:
    """A shard as plain values for JSON."""
    return [shard.url, shard.size, shard.version] if isinstance(shard, RemoteFile) else str(shard)


def _shard(plain: str | list[Any]) -> AnyShard:
    """The inverse of `_plain`; a command was checked when the source was opened."""
    if isinstance(plain, list):
        return RemoteFile(*plain)
    return PipeShard(plain) if is_pipe(plain) else Path(plain)


def _names(shards: Sequence[AnyShard]) -> list[str]:
    """Names of the shards, by `relative_names`; the name of a command is its address."""
    files = [shard for shard in shards if not isinstance(shard, PipeShard)]
    names = iter(relative_names(files) if files else [])
    return [printable_name(shard.address) if isinstance(shard, PipeShard) else next(names) for shard in shards]
