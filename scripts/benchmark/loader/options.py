"""Settings of the benchmark of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """What to measure and how."""

    sizes: tuple[tuple[int, int], ...] = ((640, 480), (1024, 768))
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
    given: dict[str, Any] = {}
    names = {field.name for field in fields(LoaderOptions)}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in names:
            raise ConfigError(f"{argument}: part=loader takes {', '.join(sorted(names))}; it measures no recipe")
        given[name] = _value(name, value)
    return LoaderOptions(**given)


def _value(name: str, value: str) -> Any:
    if name == "source":
        return value
    if name == "access":
        return tuple(value.split(","))
    if name == "json":
        return Path(value).expanduser()
    if name == "sizes":
        return tuple(_size(size) for size in value.split(","))
    return _number(name, value)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    size = _number("sizes", width), _number("sizes", height or width)
    if min(size) < 8:
        raise ConfigError(f"sizes={text}: photographs have 8 pixels per side or more")
    return size


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise ConfigError(f"{name}={value} is no whole number") from error
