"""The training data of a run that reads shards one after the other: opened, loaded, saved and continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from blip2_train import distributed
from blip2_train.data.fingerprint import Fingerprint
from blip2_train.data.sequential.batches import (
    BatchIndices,
    BatchOrigin,
    SequentialBatches,
    SequentialLoader,
    StreamPosition,
    StreamShape,
)
from blip2_train.data.sequential.plan import SequentialPlan
from blip2_train.data.sequential.source import open_sequential
from blip2_train.data.sequential.source_cursor import START
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.data.stream.stream import ATTEMPTS, ReadImage
from blip2_train.errors import CheckpointMismatch
from blip2_train.system.records import Count, check_record
from blip2_train.types import Collator


class _Position(msgspec.Struct, forbid_unknown_fields=True):
    """See `Position`."""

    epoch: Count
    draws: Count
    total: Count | None
    shards: list[tuple[Count, Count]]


class SequentialReading:
    """What a data module does otherwise with `access="sequential"`.

    Every process has as many streams as the others, and reads as many micro-batches; where the streams stand travels
    with the batches, so that what is saved belongs to the batches that were trained on, whatever readers have made
    ahead.

    Args:
        configs: of the sources.
        shape: how a global batch is cut.
        streams: of each process.
        buffer: samples in the shuffle buffer of each stream.
        seed: of the order.
        workers: readers of each process.
        hold_out: keep the last shard of the first source for validation.

    Raises:
        ConfigError: if it cannot be done with these sources or numbers.
        ShardError: if a source does not exist.
    """

    def __init__(
        self,
        configs: Sequence[SourceConfig],
        shape: BatchShape,
        *,
        streams: int,
        buffer: int,
        seed: int,
        workers: int,
        hold_out: bool,
    ) -> None:
        self.sources = open_sequential(configs, hold_out)
        self._shape = StreamShape(batches=shape, rank=distributed.rank(), streams=streams, buffer=buffer, seed=seed)
        self._shape.check(self.sources, workers)
        self._workers = workers
        self._resumed: list[StreamPosition] | None = None
        self._origins: dict[int, BatchOrigin] = {}

    def loader(self, read_image: ReadImage, collator: Collator, steps: int, first_step: int, **options: Any) -> Any:
        """This process's micro-batches from the first step that is not done."""
        accumulate = self._shape.batches.accumulate
        numbers = BatchIndices(steps * accumulate, first_step * accumulate)
        streams = SequentialBatches(self.sources, self._shape, read_image, first_step * accumulate, self._resumed)
        return SequentialLoader(streams, collator, numbers, self._note, num_workers=self._workers, **options)

    def fingerprint(self) -> Fingerprint:
        """What has to be the same for a run to continue in the same order of samples."""
        batches = self._shape.batches
        entries: Fingerprint = {
            "data.access": "sequential",
            "number of processes (data.access=sequential)": batches.world_size,
            "accumulate (data.access=sequential)": batches.accumulate,
            "data.streams": self._shape.streams,
            "data.shuffle_buffer": self._shape.buffer,
            "data sources": ", ".join(source.name for source in self.sources),
        }
        for source in self.sources:
            contents = f"{len(source.shards)} shards, hash {source.fingerprint()}"
            entries[f"data source {source.name}"] = f"{contents}, weight {source.weight:g}"
        return entries

    def positions(self, steps: int) -> list[list[StreamPosition]]:
        """Position of every stream of every process after `steps` steps; every process must call it."""
        done = steps * self._shape.batches.accumulate
        latest = {origin.stream: origin.position for batch, origin in sorted(self._origins.items()) if batch < done}
        start = self._resumed or [{source.name: START for source in self.sources}] * self._shape.streams
        return distributed.gather_objects([latest.get(number, start[number]) for number in range(len(start))])

    def resume(self, positions: Any, samples_consumed: int) -> None:
        """Resume the streams of all processes at `positions`.

        Raises:
            CheckpointMismatch: if a checkpoint holds something else, or what no run of its length can have reached.
        """
        what, fix = "the position in the data of the checkpoint", "resume from another checkpoint"
        kind = list[list[dict[str, _Position]]]
        stored = check_record(positions, kind, what, fix)
        names = {source.name for source in self.sources}
        streams = [stream for process in stored for stream in process]
        fits = len(stored) == self._shape.batches.world_size and len(streams) == self._shape.all_streams
        for stream in streams:
            fits &= stream.keys() == names
            for name, position in stream.items() if fits else ():
                fits &= max(position.epoch, position.draws) <= ATTEMPTS * (1 + samples_consumed)
                fits &= position.total is None or position.draws <= position.total
                fits &= all(row < self._most_shards(name) for _, row in position.shards)
        if not fits:
            raise CheckpointMismatch(f"{what} does not fit its own run, so it is damaged; {fix}")
        self._resumed = positions[self._shape.rank]

    def _most_shards(self, name: str) -> int:
        """Shards of a source that a stream can have in an epoch."""
        shards = next(len(source.shards) for source in self.sources if source.name == name)
        return -(-shards // self._shape.all_streams)

    def plan(self, **numbers: Any) -> SequentialPlan:
        """What the run reads."""
        return SequentialPlan(
            sources=self.sources, shape=self._shape, workers=self._workers, passes=self._passes, **numbers
        )

    def _note(self, origin: BatchOrigin) -> None:
        """Keep the origin of a batch, and drop those that no checkpoint can need any more."""
        self._origins[origin.batch] = origin
        kept = self._shape.streams + 2 * self._shape.batches.accumulate
        self._origins.pop(origin.batch - kept, None)

    def _passes(self) -> dict[str, float]:
        """Passes over each source, the mean of this process's streams that have begun."""
        latest = {origin.stream: origin.epochs for _, origin in sorted(self._origins.items())}
        return {
            source.name: sum(epochs[source.name] for epochs in latest.values()) / max(1, len(latest))
            for source in self.sources
        }
