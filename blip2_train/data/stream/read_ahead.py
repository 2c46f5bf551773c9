"""Tells sources on remote storage what a reader of the training stream will read, as far as it goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Any

from torch.utils.data import get_worker_info

from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.source import FollowsOrder, supports_read_ahead
from blip2_train.data.stream.batch_sampler import GlobalBatchSampler
from blip2_train.data.stream.mixture import Mixture
from blip2_train.data.stream.order import SampleOrder

_LONGEST = 16384
"""Samples of a passage, at most, however large the window of the order is."""


class StreamReadAhead:
    """What one reader of a stream reads, in order, for sources that fetch it before it is needed.

    The order follows from the seed, and the batches of a reader from its number: torch gives them out in turn. A batch
    that was not foreseen is no error; the plan begins anew with it.

    Args:
        sources: of the stream.
        orders: of each.
        mixture: which source serves which position.
        schedule: what the process reads in the whole run; None = nothing is known beyond the batch that is asked for.
    """

    def __init__(
        self,
        sources: Sequence[TrainingSource],
        orders: Sequence[SampleOrder],
        mixture: Mixture,
        schedule: GlobalBatchSampler | None,
    ) -> None:
        self._sources, self._orders, self._mixture, self._schedule = sources, orders, mixture, schedule
        self._coming: Iterator[list[int]] = iter(())
        self._needed = any(supports_read_ahead(one.source) for one in sources)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coming": iter(())}

    def begin(self, positions: Sequence[int]) -> None:
        """A batch is read now."""
        if self._needed and next(self._coming, None) != [*positions]:
            self._follow([*positions])

    def _follow(self, positions: list[int]) -> None:
        """Begin anew with a batch."""
        worker = get_worker_info()
        every = 1 if worker is None else worker.num_workers
        self._coming = self._batches(positions, every)
        next(self._coming)
        for chosen, part in enumerate(self._sources):
            if isinstance(part.source, FollowsOrder) and part.source.reads_ahead:
                share = self._mixture.shares[chosen] / every
                part.source.follow(self._passages(chosen, self._batches(positions, every)), share)
            elif supports_read_ahead(part.source):
                part.source.read_ahead(next(self._passages(chosen, [positions]), []))

    def _batches(self, positions: list[int], every: int) -> Iterator[list[int]]:
        """A batch, and what the same reader makes after it."""
        coming = iter(()) if self._schedule is None else self._schedule.following(positions[0], every)
        return chain([positions], coming if next(coming, None) == positions else ())

    def _passages(self, chosen: int, batches: Iterable[list[int]]) -> Iterator[list[int]]:
        """Numbers of a source's samples in batches, window by window of its order."""
        part, order = self._sources[chosen], self._orders[chosen]
        located = (self._mixture.source_at(position) for batch in batches for position in batch)
        positions = (divmod(index, len(part)) for one, index in located if one == chosen)
        for _, window in groupby(positions, key=lambda position: (position[0], position[1] // order.window)):
            while indices := [part.sample_index(order.sample_at(*position)) for position in islice(window, _LONGEST)]:
                yield indices
