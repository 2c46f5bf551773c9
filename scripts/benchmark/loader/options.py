"""Settings of the benchmark of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.options import read_part
from blip2_train.config.key_values import READ
from blip2_train.errors import ConfigError

SYNTAX = """\
  sizes=<w>x<h>,…    sizes of the photographs that are made for it (640x480,1024x768); JPEG, quality 85
  images=<n>       of each size, or of the source (64)
  source=<shards>    read these instead: folder, glob or file
  image_size=<n>     pixels per side of the model's input (224)
  batch_size=<n>     samples per batch (32)
  turns=<n>          times that each way of reading is timed (7)
  steps=<n>          steps timed for the share of waiting, three times (6)
  samples=<n>        samples of the index that is resumed in (129000000)
  access=<way>,…     measure this alone: random and sequential access to the source, or to 8 shards made for it
  json=<file>        write all figures there too"""


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(_size(size) for size in text.strip("[]").split(","))


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and (height or width).isdecimal()):
        raise ConfigError(f"sizes={text}: expected whole numbers of pixels, <width>x<height>")
    size = int(width), int(height or width)
    if min(size) < 8:
        raise ConfigError(f"sizes={text}: photographs have 8 pixels per side or more")
    return size


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """What to measure and how."""

    sizes: tuple[tuple[int, int], ...] = field(default=((640, 480), (1024, 768)), metadata={READ: _sizes})
    """Width and height, pixels."""
    images: int = 64
    """Of each size, or of the source."""
    source: str | None = None
    """Shards to read instead."""
    image_size: int = 224
    """Pixels per side of the model's input."""
    batch_size: int = 32
    turns: int = 7
    """Times that each way of reading is timed."""
    steps: int = 6
    """Steps timed for the share of waiting."""
    samples: int = 129_000_000
    """Samples of the index that is resumed in."""
    access: tuple[str, ...] = ()
    """Ways of access that are compared; none = measure everything else."""
    json: Path | None = None

    def __post_init__(self) -> None:
        for name in ("images", "image_size", "batch_size", "turns", "steps", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.images % self.batch_size:
            raise ConfigError(
                f"images={self.images} is no multiple of batch_size={self.batch_size}: give one, so that every way "
                "reads each image equally often"
            )
        if self.samples < 10 * self.batch_size:
            raise ConfigError(f"samples={self.samples} is too few to resume in; give {10 * self.batch_size} or more")
        if wrong := set(self.access) - {"random", "sequential"}:
            raise ConfigError(f"access={','.join(sorted(wrong))}: give random, sequential or both")
        if self.json is not None and not self.json.parent.is_dir():
            raise ConfigError(f"json={self.json}: there is no folder {self.json.parent}")


def read_options(arguments: Sequence[str]) -> LoaderOptions:
    """The options of a command line.

    Raises:
        ConfigError: if an argument is unknown or a value cannot be used.
    """
    return read_part(arguments, LoaderOptions, part="loader")
