"""What a source of pictures with captions gives: one sample by its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from blip2_train.types import RejectedSample


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample as it lies in the data."""

    picture: bytes
    """Content of the picture's file."""
    captions: tuple[str, ...]
    """At least one, as written."""
    image_id: int
    """Equal for samples that show the same picture; fits int64."""


class Place(NamedTuple):
    """Where a sample lies."""

    file: str
    """Path of the shard or annotation file."""
    shard: str
    """The same without what depends on the machine: path below the source's folder, without extension."""
    key: str
    """Key inside the shard, or path of the picture."""
    row: str = ""
    """Row of an annotation file, for people: `line 12`."""


class CaptionSource(Protocol):
    """Pictures with captions, reached by number."""

    name: str
    rejected: tuple[RejectedSample, ...]
    """What was found unusable before anything was read."""
    size: int
    """Bytes of the files that hold the samples."""
    files: int
    """Shards, or annotation files."""

    def __len__(self) -> int: ...

    def locate(self, number: int) -> Place:
        """Where sample `number` lies."""
        ...

    def read(self, number: int) -> Record:
        """Read sample `number`, 0 … `len - 1`; raises `UnusableSample`."""
        ...

    def fingerprint(self) -> str:
        """A short text that changes when a number would stand for another sample."""
        ...
