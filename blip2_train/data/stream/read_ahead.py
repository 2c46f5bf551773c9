"""Announces to sources on remote storage which samples a reader of the training stream will read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Any

from torch.utils.data import get_worker_info

from blip2_train.data.order import SampleOrder
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.source import FollowsOrder, supports_read_ahead
from blip2_train.data.stream.batch_sampler import GlobalBatchSampler
from blip2_train.data.stream.mixture import Mixture

_MAX_SAMPLES = 16384
"""Largest number of samples in a passage, for any size of the order's window."""


class StreamReadAhead:
    """The samples that one reader of a stream will read, in order, for sources that fetch them in advance.

    The order follows from the seed, and the batches of a reader from its rank, as torch assigns them in turn. An
    unexpected batch is no error: the schedule starts again with it.

    Args:
        sources: sources of the stream.
        orders: order of each source.
        mixture: the source of each position.
        schedule: batches of the process in the whole run; None = only the current batch is known.
    """

    def __init__(
        self,
        sources: Sequence[TrainingSource],
        orders: Sequence[SampleOrder],
        mixture: Mixture,
        schedule: GlobalBatchSampler | None,
    ) -> None:
        self._sources, self._orders, self._mixture, self._schedule = sources, orders, mixture, schedule
        self._upcoming: Iterator[list[int]] = iter(())
        self._needed = any(supports_read_ahead(one.source) for one in sources)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coming": iter(())}

    def begin(self, positions: Sequence[int]) -> None:
        """Announce that a batch is read now."""
        if self._needed and next(self._upcoming, None) != [*positions]:
            self._follow([*positions])

    def _follow(self, positions: list[int]) -> None:
        """Start the schedule again with a batch."""
        worker = get_worker_info()
        every = 1 if worker is None else worker.num_workers
        self._upcoming = self._batches(positions, every)
        next(self._upcoming)
        for chosen, part in enumerate(self._sources):
            if isinstance(part.source, FollowsOrder) and part.source.reads_ahead:
                share = self._mixture.shares[chosen] / every
                part.source.follow(self._passages(chosen, self._batches(positions, every)), share)
            elif supports_read_ahead(part.source):
                part.source.read_ahead(next(self._passages(chosen, [positions]), []))

    def _batches(self, positions: list[int], every: int) -> Iterator[list[int]]:
        """A batch, and the later batches of the same reader."""
        coming = iter(()) if self._schedule is None else self._schedule.following(positions[0], every)
        return chain([positions], coming if next(coming, None) == positions else ())

    def _passages(self, chosen: int, batches: Iterable[list[int]]) -> Iterator[list[int]]:
        """Indices of a source's samples in batches, window by window of its order."""
        part, order = self._sources[chosen], self._orders[chosen]
        located = (self._mixture.source_at(position) for batch in batches for position in batch)
        positions = (divmod(index, len(part)) for one, index in located if one == chosen)
        for _, window in groupby(positions, key=lambda position: (position[0], position[1] // order.window)):
            while indices := [
                part.sample_index(order.sample_at(*position)) for position in islice(window, _MAX_SAMPLES)
            ]:
                yield indices
