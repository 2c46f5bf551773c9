"""Fetches samples from remote storage before they are read, in few long requests and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from threading import RLock
from typing import NamedTuple

import numpy as np

REQUESTS = 16
"""Concurrent requests."""
FIRST = 32
"""Samples that are fetched first, so that the first batch does not wait for whole blocks."""
_MAX_BYTES = 32_000_000
"""Largest size of a request, bytes."""
_MAX_WASTE = 8.0
"""Largest ratio of the bytes of a request to the bytes needed of it."""
_MIN_GAIN = 4.0
"""Smallest number of samples per request of a round, times the ratio of fetched to needed bytes; below it, each sample
is one request, as joint requests would save little and fetch much in vain."""
_ROUND_SHARE = 0.9
"""Share of the memory for the samples of a round; the rest is for bytes that requests fetch beside them."""


class Span(NamedTuple):
    """A range of bytes in a shard, by the shard's index."""

    shard: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(eq=False)
class _Range:
    """One request, and its samples."""

    span: Span
    samples: list[Span]
    future: Future[dict[Span, bytes]] | None = None
    held: int = 0
    """Bytes of memory that it occupies now."""
    left: set[Span] = field(init=False)
    """Samples that were not taken yet."""

    def __post_init__(self) -> None:
        self.left = set(self.samples)


class Prefetcher:
    """Fetches samples in the order in which they will be read, and returns each of them once.

    The samples of a passage lie in a few blocks of the shards (the training order permutes inside a window of blocks).
    A passage is split into as few rounds as memory allows; in a round, neighbouring samples share a request. While a
    round is read, the next one is fetched into the memory that becomes free.

    Args:
        fetch: returns the bytes of a span.
        passages: the samples that will be read, in order.
        memory: bytes that are held, including those of running requests; 0 = one request per sample.
    """

    def __init__(self, fetch: Callable[[Span], bytes], passages: Iterable[Sequence[Span]], memory: int = 0) -> None:
        self._fetch, self._memory = fetch, memory
        self._coming_rounds = rounds(passages, memory)
        self._rounds: deque[dict[Span, _Range]] = deque()
        """The one that is being read, and the next."""
        self._waiting: deque[_Range] = deque()
        self._used = 0
        """Bytes of samples that were fetched and not taken, and of running requests."""
        self._lock = RLock()
        self._pool = ThreadPoolExecutor(REQUESTS)
        self._splitter = ThreadPoolExecutor(1)
        """One thread splits all responses into samples: glibc frees memory late that many threads allocate in turn."""
        self._plan_rounds()

    def take(self, sample: Span) -> bytes | None:
        """The bytes of a sample, once; None if it was not announced, or its request failed.

        Raises:
            ShardError: if the storage failed too often.
        """
        rounds_ahead = next((rounds_ahead for rounds_ahead, one in enumerate(self._rounds) if sample in one), None)
        if rounds_ahead is None:
            return None
        for _ in range(rounds_ahead):
            self._drop_round(self._rounds.popleft())
        request = self._rounds[0].pop(sample)
        if rounds_ahead:
            self._plan_rounds()
        with self._lock:
            if request.future is None:
                self._waiting.remove(request)
                self._start(request)
        assert request.future is not None
        try:
            data = request.future.result().pop(sample)
        except OSError:
            data = None
        request.left.discard(sample)
        self._set_held(request, request.held - sample.size if request.left and data is not None else 0)
        return data

    def close(self) -> None:
        """Cancel all requests, and drop what was fetched."""
        with self._lock:
            self._waiting.clear()
            self._rounds.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._splitter.shutdown(wait=False)

    def _plan_rounds(self) -> None:
        """Plan rounds until there is one after the one that is being read."""
        while len(self._rounds) < 2 and (requests := next(self._coming_rounds, None)) is not None:
            with self._lock:
                self._rounds.append({sample: request for request in requests for sample in request.samples})
                self._waiting += requests
                self._start_what_fits()

    def _start_what_fits(self) -> None:
        while self._waiting and (not self._memory or self._used + self._waiting[0].span.size <= self._memory):
            self._start(self._waiting.popleft())

    def _start(self, request: _Range) -> None:
        request.held = request.span.size
        self._used += request.held
        request.future = self._pool.submit(self._load, request)

    def _load(self, request: _Range) -> dict[Span, bytes]:
        try:
            data = self._fetch(request.span)
        except BaseException:
            self._set_held(request, 0)
            raise
        samples = self._splitter.submit(_split, data, request).result()
        self._set_held(request, sum(sample.size for sample in request.left))
        return samples

    def _set_held(self, request: _Range, size: int) -> None:
        """Set the bytes that a request occupies now."""
        with self._lock:
            self._used += size - request.held
            request.held = size
            self._start_what_fits()

    def _drop_round(self, finished: dict[Span, _Range]) -> None:
        """Drop the samples of a finished round that were not taken."""
        with self._lock:
            for request in set(finished.values()):
                request.left.clear()
                if request.future is None:
                    self._waiting.remove(request)
                elif request.future.cancel() or request.future.done():
                    self._set_held(request, 0)


def _split(data: bytes, request: _Range) -> dict[Span, bytes]:
    """The samples in the response of a request."""
    first = request.span.start
    return {sample: data[sample.start - first : sample.end - first] for sample in request.samples}


def rounds(passages: Iterable[Sequence[Span]], memory: int) -> Iterator[list[_Range]]:
    """The requests of each round, in the order in which their samples are read."""
    room, first = int(memory * _ROUND_SHARE), FIRST
    for passage in passages:
        if not room:
            for start in range(0, len(passage), 2 * FIRST):
                yield [_Range(sample, [sample]) for sample in passage[start : start + 2 * FIRST]]
            continue
        sizes = np.cumsum([sample.size for sample in passage[first:]], dtype=np.int64)
        parts = -(-int(sizes[-1]) // room) if len(sizes) else 0
        ends = [first + 1 + int(np.searchsorted(sizes, sizes[-1] * part / parts)) for part in range(1, parts + 1)]
        for start, end in pairwise(sorted({0, min(first, len(passage)), *ends})):
            yield _requests(passage[start:end], memory)
        first = 0


def _requests(samples: Sequence[Span], memory: int) -> list[_Range]:
    """Requests for samples; samples that lie close together share one."""
    longest = min(_MAX_BYTES, memory // 4)
    requests: list[_Range] = []
    needed = 0
    for sample in sorted(samples):
        if requests and requests[-1].span.shard == sample.shard:
            start, end = requests[-1].span.start, max(requests[-1].span.end, sample.end)
            if end - start <= min(longest, _MAX_WASTE * (needed + sample.size)):
                requests[-1].span = Span(sample.shard, start, end)
                requests[-1].samples.append(sample)
                requests[-1].left.add(sample)
                needed += sample.size
                continue
        requests.append(_Range(sample, [sample]))
        needed = sample.size
    needed = sum(sample.size for sample in samples)
    if len(samples) * needed < _MIN_GAIN * len(requests) * sum(request.span.size for request in requests):
        return [_Range(sample, [sample]) for sample in samples]
    positions = {sample: position for position, sample in enumerate(samples)}
    return sorted(requests, key=lambda request: min(positions[sample] for sample in request.samples))
