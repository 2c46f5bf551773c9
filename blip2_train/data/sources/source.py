"""The protocols of sources of images with texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from blip2_train.data.record import Record, SampleLocation
from blip2_train.types import RejectedSample


class CaptionSource(Protocol):
    """Images with captions, with random access by index."""

    name: str
    rejected: tuple[RejectedSample, ...]
    """Samples that were unusable when the source was opened."""
    size: int
    """Bytes of the files that hold the samples."""
    files: int
    """Shards, or annotation files."""

    def __len__(self) -> int: ...

    def sample_location(self, index: int) -> SampleLocation:
        """The location of sample `index`."""
        ...

    def read(self, index: int) -> Record:
        """Read sample `index`, 0 … `len - 1`; raises `UnusableSample`."""
        ...

    def fingerprint(self) -> str:
        """A short text that changes when an index would mean another sample."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can fetch samples before they are read."""

    reads_ahead: bool
    """Whether that is faster: its samples lie on remote storage."""

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Fetch the samples with these indices, all at once."""
        ...


@runtime_checkable
class FollowsOrder(ReadsAhead, Protocol):
    """A source that can fetch all of its samples in the order in which they will be read."""

    def follow(self, passages: Iterable[Sequence[int]], share: float = 1.0) -> None:
        """Fetch samples in this order, before they are read; replaces an earlier order.

        Args:
            passages: lazy groups of sample indices, in order; the samples of a passage lie close together.
            share: share of the memory for that, 0 … 1.
        """
        ...


def supports_read_ahead(source: CaptionSource) -> TypeGuard[ReadsAhead]:
    """Whether a source is faster when samples are fetched before they are read."""
    return isinstance(source, ReadsAhead) and source.reads_ahead


@runtime_checkable
class ReadsTexts(Protocol):
    """A source that can read the texts of a sample without its image."""

    def read_texts(self, index: int) -> Record:
        """Sample `index` as `read` returns it, with an empty image; raises `UnusableSample`."""
        ...


class PairSource(CaptionSource, Protocol):
    """Images with captions and further fields, from which shards are made."""

    def details(self, index: int) -> dict[str, Any]:
        """Entries for the record of sample `index`, as JSON holds them; `image_id` and `url` among them if known."""
        ...
