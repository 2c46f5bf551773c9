"""Batches of texts of like length: samples of several global batches are sorted by the length of their texts.

Only for objectives whose samples are not each other's negatives: there the company of a sample does not matter, and
what a batch pads to its longest text is computed for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.order import permutation
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.source import ReadsTexts, supports_read_ahead
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler
from blip2_train.data.stream.stream import TrainingStream
from blip2_train.errors import ConfigError
from blip2_train.types import ImageTextSample

Lengths = Callable[[Sequence[int]], Sequence[int]]
"""Returns the length of the text at each of some positions of the global order."""
LIKE_LENGTHS = "data.batches_of_like_length"
"""The setting."""


@runtime_checkable
class CountsTokens(Protocol):
    """A collator that pads each batch to its longest text."""

    def text_lengths(self, samples: Sequence[ImageTextSample]) -> list[int]:
        """Tokens of each sample's text."""
        ...


class TextLengths:
    """Lengths of the texts of a stream, in tokens of a collator.

    Args:
        stream: its sources are `ReadsTexts`.
        collator: counts tokens.
    """

    def __init__(self, stream: TrainingStream, collator: CountsTokens) -> None:
        self._stream, self._collator = stream, collator

    def __call__(self, positions: Sequence[int]) -> list[int]:
        """The length at each position; 0 if the sample there is to be replaced by another."""
        samples = self._stream.texts(positions)
        usable = [sample for sample in samples if sample is not None]
        lengths = iter(self._collator.text_lengths(usable) if usable else ())
        return [0 if sample is None else next(lengths) for sample in samples]


class LikeLengthSampler(GlobalBatchSampler):
    """The micro-batches of one process, of texts of like length.

    The global order is cut into windows of `window` global batches. The positions of a window are sorted by the lengths
    of their texts and cut into global batches again, whose order in the window is shuffled; a global batch is cut into
    micro-batches in the order of length. So every position is read exactly once, on any hardware, and a run resumes at
    any step. A run that ends inside a window leaves out the samples of its batches that do not come.

    Args:
        shape: sizes of the batches.
        rank: rank of this process.
        steps: optimiser steps of the whole run.
        first_step: optimiser steps done before.
        window: global batches in a window.
        seed: chooses the order of the batches in a window.
        lengths: lengths of texts; must be the same on every process. Those of a window are asked for little by little
            while the window before is read.
    """

    def __init__(
        self, shape: BatchShape, rank: int, steps: int, first_step: int, *, window: int, seed: int, lengths: Lengths
    ) -> None:
        super().__init__(shape, rank, steps, first_step)
        self._window, self._seed, self._lengths = window, seed, lengths

    def _from(self, first: int, every: int) -> Iterator[list[int]]:
        shape, size = self._shape, self._shape.micro_batch_size
        batches, samples = self._window * shape.accumulate, self._window * shape.global_batch_size
        known, coming = None, _Window(first // batches, samples)
        for batch in range(first, self._steps * shape.accumulate, every):
            number, inside = divmod(batch, batches)
            if known is None or known.number != number:
                known = coming if coming.number == number else _Window(number, samples)
                known.measure(samples, self._lengths)
                order = self._order(known)
                coming = _Window(number + 1, samples)
            step, part = divmod(inside, shape.accumulate)
            start = (part * shape.world_size + self._rank) * size
            yield order[step, start : start + size].tolist()
            if coming.number * self._window < self._steps:
                coming.measure(-(-samples * every // batches), self._lengths)

    def _order(self, window: _Window) -> NDArray[np.int64]:
        """Positions of a window `(global batches, samples)`."""
        sorted_rows = np.argsort(np.asarray(window.lengths), kind="stable").reshape(self._window, -1)
        shuffled = permutation(self._window, "batches of like length", self._seed, window.number)
        return window.first + sorted_rows[shuffled]


class _Window:
    """The lengths of a window's texts, as far as they are known."""

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size, self.first = number, size, number * size
        self.lengths: list[int] = []

    def measure(self, count: int, lengths: Lengths) -> None:
        """Ask for `count` more lengths, or as many as are missing."""
        known = len(self.lengths)
        count = min(count, self.size - known)
        if count > 0:
            self.lengths += lengths(range(self.first + known, self.first + known + count))


def check_like_lengths(window: int | None, collator: Any, excluded: Mapping[str, bool]) -> None:
    """Refuse a window that cannot be used.

    Args:
        window: global batches in a window; None = no such batches.
        collator: the run's collator.
        excluded: settings that exclude it, by name, and whether they are set.

    Raises:
        ConfigError: saying what to change.
    """
    if window is None:
        return
    if window < 2:
        raise ConfigError(f"{LIKE_LENGTHS} is a number of global batches, 2 or more, or null; got {window}")
    if not isinstance(collator, CountsTokens):
        raise ConfigError(
            f"{LIKE_LENGTHS} is for stage 2, captions and questions: in stage 1 samples are each other's negatives, "
            "so their company is not to follow from their length; set it to null"
        )
    for name, given in excluded.items():
        if given:
            raise ConfigError(f"{LIKE_LENGTHS} does not go together with {name}: set one of them to its default")


def check_texts(window: int | None, sources: Sequence[TrainingSource]) -> None:
    """Refuse sources whose texts cannot be read without their images.

    Raises:
        ConfigError: naming the source.
    """
    for part in sources if window is not None else ():
        name = part.source.name
        if not isinstance(part.source, ReadsTexts) or supports_read_ahead(part.source):
            raise ConfigError(
                f"{LIKE_LENGTHS} has to know the texts before the images, and source {name!r} is remote or has no "
                "texts by themselves: set it to null, or copy the source to a local disk"
            )


def choose_sampler(
    stream: TrainingStream, collator: Any, *sizes: Any, window: int | None, seed: int
) -> GlobalBatchSampler:
    """The micro-batches of a process, of like length if there is a window; `sizes` as for `GlobalBatchSampler`."""
    if window is None:
        return GlobalBatchSampler(*sizes)
    return LikeLengthSampler(*sizes, window=window, seed=seed, lengths=TextLengths(stream, collator))
