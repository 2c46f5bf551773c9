"""Settings of the benchmark of many shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.options import read_part
from blip2_train.errors import ConfigError

SYNTAX = """\
  shards=<n>         shards that are opened (100000): links to small tar files, each with an index of its own
  random=<n>         shards of them that are read in random order (2000)
  turns=<n>          times that opening is timed (3)
  json=<file>        write all figures there too"""


@dataclass(frozen=True, kw_only=True)
class ShardsOptions:
    """What to measure and how."""

    shards: int = 100_000
    random: int = 2000
    """Shards that are read in random order."""
    turns: int = 3
    """Times that opening is timed."""
    json: Path | None = None

    def __post_init__(self) -> None:
        for name in ("shards", "random", "turns"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.random > self.shards:
            raise ConfigError(f"random={self.random} is more than there are shards ({self.shards})")
        if self.json is not None and not self.json.parent.is_dir():
            raise ConfigError(f"json={self.json}: there is no folder {self.json.parent}")


def read_options(arguments: Sequence[str]) -> ShardsOptions:
    """The options of a command line.

    Raises:
        ConfigError: if an argument is unknown or a value cannot be used.
    """
    return read_part(arguments, ShardsOptions, part="shards")
