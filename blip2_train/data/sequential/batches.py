"""The micro-batches of one process, each read from one of its streams in turn, and their loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import Dataset, Sampler

from blip2_train.data.order import stable_seed
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sequential.source import SequentialSource
from blip2_train.data.sequential.source_cursor import START, Position, SourceCursor
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.data.stream.loader import BatchLoader
from blip2_train.data.stream.mixture import Mixture
from blip2_train.data.stream.stream import ATTEMPTS, ReadImage, rejection_at, training_sample, unusable_source_error
from blip2_train.errors import ConfigError
from blip2_train.types import Batch, Collator, ImageTextSample, RejectedSample

StreamPosition = dict[str, Position]
"""Position of a stream in each source, by the source's name."""


class BatchOrigin(NamedTuple):
    """The origin of a micro-batch: its stream, and the stream's position after it."""

    batch: int
    """Index of the micro-batch among those of this process in the run, from 0."""
    stream: int
    """Index of the process's stream from which it was read."""
    position: StreamPosition
    """Position of that stream after it."""
    epochs: dict[str, float]
    """Passes of that stream over its part of each source."""


@dataclass(frozen=True, kw_only=True)
class StreamShape:
    """How a process's part of a run is split into streams."""

    batches: BatchShape
    rank: int
    """Rank of this process."""
    streams: int
    """Streams of each process."""
    buffer: int
    """Samples in the shuffle buffer of each stream and source."""
    seed: int

    @property
    def all_streams(self) -> int:
        """Streams of all processes."""
        return self.streams * self.batches.world_size

    def check(self, sources: Sequence[SequentialSource], workers: int) -> None:
        """Refuse a shape with a stream without shards, or with an order that depends on the number of readers.

        Raises:
            ConfigError: with the values and what to set.
        """
        if self.streams < 1 or self.buffer < 1:
            raise ConfigError(
                f"data.streams and data.shuffle_buffer must be at least 1, got {self.streams} and {self.buffer}"
            )
        if workers and self.streams % workers:
            fits = [readers for readers in range(1, self.streams + 1) if self.streams % readers == 0]
            raise ConfigError(
                f"data.num_workers={workers} readers cannot share data.streams={self.streams} evenly: use "
                f"data.num_workers={' or '.join(map(str, fits))} (the order of samples stays the same), or set "
                f"data.streams={workers}"
            )
        for source in sources:
            if len(source.shards) < self.all_streams:
                most = len(source.shards) // self.batches.world_size
                advice = (
                    f"set data.streams={most} and a number of readers that divides it"
                    if most
                    else "train in fewer processes, make more and smaller shards, or pass data.access=random"
                )
                raise ConfigError(
                    f"source {source.name!r} has {len(source.shards)} shards to train on, fewer than the "
                    f"{self.all_streams} streams that read at a time (data.streams={self.streams} in each of "
                    f"{self.batches.world_size} processes): {advice}"
                )


@dataclass
class _Stream:
    """One stream that is being read."""

    cursors: list[SourceCursor]
    mixture: Mixture
    next_batch: int
    generator: torch.Generator = field(default_factory=torch.Generator)


class SequentialBatches(Dataset[tuple[list[ImageTextSample], BatchOrigin]]):
    """Micro-batch b of a process is read from its stream `b % streams`, by any reader.

    The loader gives reader w of n the batches w, w + n, …. If n divides the number of streams, one reader reads a
    stream, in order: the order of samples does not depend on the number of readers.

    Args:
        sources: sources of the mixture, with their weights.
        shape: sizes.
        read_image: see `TrainingStream`.
        first_batch: micro-batches of this process that were completed before.
        positions: position of each stream of this process; None = the start.
    """

    def __init__(
        self,
        sources: Sequence[SequentialSource],
        shape: StreamShape,
        read_image: ReadImage,
        first_batch: int = 0,
        positions: Sequence[StreamPosition] | None = None,
    ) -> None:
        self._sources, self._shape, self._read_image = list(sources), shape, read_image
        self._first = first_batch
        self._positions = positions
        self._streams: dict[int, _Stream] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": {}}

    def __getitem__(self, batch: int) -> tuple[list[ImageTextSample], BatchOrigin]:
        stream_index = batch % self._shape.streams
        stream = self._streams.get(stream_index)
        if stream is None or batch != stream.next_batch:
            stream = self._streams[stream_index] = self._begin(stream_index)
        if batch != stream.next_batch:
            raise RuntimeError(f"micro-batch {batch} was requested, but {stream.next_batch} is the next")
        stream.next_batch += self._shape.streams
        size = self._shape.batches.micro_batch_size
        first = batch // self._shape.streams * size
        samples = [self._sample(stream, stream_index, first + offset) for offset in range(size)]
        names = [source.name for source in self._sources]
        position = {name: cursor.position() for name, cursor in zip(names, stream.cursors, strict=True)}
        epochs = {name: cursor.epochs for name, cursor in zip(names, stream.cursors, strict=True)}
        return samples, BatchOrigin(batch, stream_index, position, epochs)

    def _begin(self, stream_index: int) -> _Stream:
        """Open a stream at the position at which this run begins."""
        shape, start = self._shape, {source.name: START for source in self._sources}
        where = self._positions[stream_index] if self._positions is not None else start
        own = shape.rank * shape.streams + stream_index
        cursors = [
            SourceCursor(source, shape.seed, own, shape.all_streams, shape.buffer, where[source.name])
            for source in self._sources
        ]
        mixture = Mixture([source.weight for source in self._sources], stable_seed("stream", shape.seed, own))
        following = self._first + (stream_index - self._first) % shape.streams
        return _Stream(cursors, mixture, following)

    def _sample(self, stream: _Stream, stream_index: int, count: int) -> ImageTextSample:
        """The sample of a stream after `count` others."""
        chosen = stream.mixture.source_at(count)[0]
        source, cursor = self._sources[chosen], stream.cursors[chosen]
        own = self._shape.rank * self._shape.streams + stream_index
        rejected: list[RejectedSample] = []
        for attempt in range(ATTEMPTS):
            drawn, skipped = cursor.draw()
            rejected += skipped
            stream.generator.manual_seed(stable_seed("streamed sample", self._shape.seed, own, count, attempt))
            try:
                record = drawn.record()
                return training_sample(
                    record,
                    drawn.location,
                    self._read_image,
                    stream.generator,
                    captions=record.captions,
                    first_captions=source.first_captions,
                    rejected=rejected,
                )
            except UnusableSample as problem:
                rejected.append(rejection_at(drawn.location, problem))
        raise unusable_source_error(source.name, rejected)


class BatchIndices(Sampler[int]):
    """Indices of a process's micro-batches, from the first not completed; the length is that of the whole run."""

    def __init__(self, total: int, first: int) -> None:
        self._total, self._first = total, first

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[int]:
        yield from range(self._first, self._total)


class _WithOrigin:
    """Collates the samples of a micro-batch, and returns the origin beside the batch."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def __call__(self, item: tuple[list[ImageTextSample], BatchOrigin]) -> tuple[Batch, BatchOrigin]:
        return self._collator(item[0]), item[1]


class SequentialLoader(BatchLoader):
    """Returns micro-batches, and reports the origin of each.

    Args:
        dataset: the streams.
        collator: makes a batch of samples, in the readers.
        indices: indices of the micro-batches.
        note: called with the origin of each micro-batch before it is returned.
        options: options of `BatchLoader`.
    """

    def __init__(
        self,
        dataset: SequentialBatches,
        collator: Collator,
        indices: BatchIndices,
        note: Callable[[BatchOrigin], None],
        **options: Any,
    ) -> None:
        super().__init__(dataset, sampler=indices, batch_size=None, collate_fn=_WithOrigin(collator), **options)
        self._note = note

    def finished(self, item: Any) -> Any:
        """A finished batch and its origin."""
        batch, origin = item
        return super().finished(batch), origin

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Iterate; `note` receives the origin before the batch is returned."""
        for batch, origin in cast("Iterator[tuple[Batch, BatchOrigin]]", super().__iter__()):
            self._note(BatchOrigin(*origin))
            yield batch
