"""One source's part of one stream: the shards of each epoch in turn, through a shuffle buffer, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.sequential.draw_order import DrawOrder
from blip2_train.data.sequential.shard_stream import StreamedSample, stream_samples
from blip2_train.data.sequential.source import SequentialSource
from blip2_train.data.shards.reader import bad_shard
from blip2_train.data.shards.sample_files import shard_record
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

Position = dict[str, Any]
"""The state of a cursor, as plain integers: `epoch`, its `draws`, its `total` samples if known, and the `shards` that
the buffer draws from or that is being read, each as the index of its first sample in the epoch and its index among the
shards of the epoch."""
START: Position = {"epoch": 0, "draws": 0, "total": None, "shards": []}


@dataclass(frozen=True)
class _Held:
    """A sample in the buffer."""

    files: StreamedSample
    shard: int
    """Index in the source."""


@dataclass(frozen=True)
class Drawn:
    """A sample that was drawn from the buffer."""

    files: StreamedSample
    location: SampleLocation
    source: SequentialSource

    def record(self) -> Record:
        """The sample as a record; raises `UnusableSample`."""
        key, image, text, extra = self.files
        own = self.source
        return shard_record(own.name, self.location.shard, key, text, extra, lambda: image, own.caption_key)


class SourceCursor:
    """The endless samples of one source in one stream.

    In every epoch it reads its share of the shards, each from start to end, through a shuffle buffer, which is drawn
    empty before the next epoch: each sample comes once per epoch. The shares of all streams make up the source.

    Args:
        source: the source.
        seed: seed of the order.
        stream: index of the stream among those of all processes.
        streams: number of these streams.
        buffer: samples in the shuffle buffer.
        position: position at which to continue.
    """

    def __init__(
        self, source: SequentialSource, seed: int, stream: int, streams: int, buffer: int, position: Position = START
    ) -> None:
        self._source, self._seed, self._stream, self._streams, self._size = source, seed, stream, streams, buffer
        self._rejected: list[RejectedSample] = []
        self._begin(position["epoch"])
        if position["draws"] or position["shards"]:
            self._restore(position)

    def draw(self) -> tuple[Drawn, list[RejectedSample]]:
        """The next sample, and the samples rejected since the one before.

        Raises:
            ShardError: if an epoch has no usable sample, or at a bad shard with `bad_shards="stop"`.
        """
        self._fill()
        if not self._order.held:
            if self._order.draws == 0:
                reasons = "; ".join(f"{one.source}: {one.reason}" for one in self._rejected[:3]) or "no members"
                raise ShardError(
                    f"no usable sample in {len(self._share)} shards of source {self._source.name!r} ({reasons})"
                )
            self._begin(self._epoch + 1)
            return self.draw()
        held = self._contents.pop(self._order.draw())
        rejected, self._rejected = self._rejected, []
        return Drawn(held.files, self._location(held), self._source), rejected

    def position(self) -> Position:
        """The position after the last draw."""
        total = self._order.read if self._order.ended else None
        return {"epoch": self._epoch, "draws": self._order.draws, "total": total, "shards": self._needed_shards()}

    @property
    def epochs(self) -> float:
        """Passes over its part of the source, by the shards that were read."""
        return self._epoch + self._next_shard / len(self._share)

    def _begin(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._epoch = epoch
        self._share = self._source.share(self._seed, epoch, self._stream, self._streams)
        self._order = DrawOrder(self._size, "draw", self._seed, self._source.name, epoch, self._stream)
        self._contents: dict[int, _Held] = {}
        self._shards: list[list[int]] = []
        self._next_shard = 0
        self._reading: Iterator[StreamedSample | RejectedSample] = iter(())

    def _fill(self) -> None:
        while self._order.wants_more:
            sample = next(self._reading, None)
            if sample is None:
                if self._next_shard == len(self._share):
                    self._order.ended = True
                    return
                self._open(self._order.read, self._next_shard)
            elif isinstance(sample, RejectedSample):
                self._reject(sample)
            else:
                self._contents[self._order.add()] = _Held(sample, self._share[self._next_shard - 1])

    def _open(self, first: int, share_index: int) -> None:
        """Start to read a shard, whose first sample has the index `first` in this epoch."""
        self._shards = [*self._needed_shards(), [first, share_index]]
        self._next_shard = share_index + 1
        self._reading = stream_samples(self._source.shards[self._share[share_index]], self._source.storage)

    def _needed_shards(self) -> list[list[int]]:
        """The shards that the buffer draws from, and the one that is being read."""
        held, needed, position = sorted(self._order.held), list[list[int]](), 0
        ends = [first for first, _ in self._shards[1:]] + [self._order.read] * bool(self._shards)
        for shard, end in zip(self._shards, ends, strict=True):
            while position < len(held) and held[position] < shard[0]:
                position += 1
            being_read = shard is self._shards[-1] and not self._order.ended
            if being_read or (position < len(held) and held[position] < end):
                needed.append(shard)
        return needed

    def _restore(self, position: Position) -> None:
        """Read the samples of the buffer again, and go to the position."""
        self._order.replay(position["draws"], position["total"])
        needed_samples = set(self._order.held)
        last = len(position["shards"]) - 1
        for shard_index, (first, share_index) in enumerate(position["shards"]):
            end = position["shards"][shard_index + 1][0] if shard_index < last else self._order.read
            self._open(first, share_index)
            reads_on = shard_index == last and position["total"] is None
            needed = end if reads_on else max((n for n in needed_samples if first <= n < end), default=first - 1) + 1
            self._read_again(first, needed, needed_samples, self._share[share_index])
        if self._contents.keys() != needed_samples:
            raise ShardError(
                f"the position in source {self._source.name!r} that the checkpoint holds is damaged; resume from "
                "another checkpoint"
            )
        if position["total"] is not None:
            self._reading = iter(())
            self._next_shard = len(self._share)

    def _read_again(self, first: int, end: int, needed: set[int], shard: int) -> None:
        """Read the samples with the indices `first` to before `end`, and keep those that the buffer needs."""
        sample_index = first
        while sample_index < end:
            sample = next(self._reading, None)
            if sample is None:
                raise ShardError(
                    f"shard {self._source.shards[shard]} gives fewer samples than before the run was interrupted: "
                    "restore it, or start a new run from the weights with init_from"
                )
            if isinstance(sample, StreamedSample):
                if sample_index in needed:
                    self._contents[sample_index] = _Held(sample, shard)
                sample_index += 1

    def _reject(self, sample: RejectedSample) -> None:
        if not sample.key and self._source.storage.options.bad_shards == "stop":
            raise bad_shard(sample.reason, f"{sample.source}: {sample.detail}")
        self._rejected.append(sample)

    def _location(self, held: _Held) -> SampleLocation:
        source = self._source
        return SampleLocation(str(source.shards[held.shard]), source.names[held.shard], held.files.key)
