"""The loader of streams that are read one after the other, and what it remembers of where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from blip2_train.data.sequential.batches import BatchNumbers, Mark, SequentialBatches
from blip2_train.data.stream.loader import BatchLoader
from blip2_train.types import Batch, Collator, ImageTextSample


class _Marked:
    """Collates the samples of a micro-batch, and leaves its mark beside it."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def __call__(self, item: tuple[list[ImageTextSample], Mark]) -> tuple[Batch, Mark]:
        return self._collator(item[0]), item[1]


class SequentialLoader(BatchLoader):
    """Gives micro-batches, and tells of each where its stream stands after it.

    Args:
        dataset: the streams.
        collator: makes a batch of samples, in the readers.
        numbers: which micro-batches.
        note: called with the mark of each before it is given.
        options: of `BatchLoader`.
    """

    def __init__(
        self,
        dataset: SequentialBatches,
        collator: Collator,
        numbers: BatchNumbers,
        note: Callable[[Mark], None],
        **options: Any,
    ) -> None:
        super().__init__(dataset, sampler=numbers, batch_size=None, collate_fn=_Marked(collator), **options)
        self._note = note

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Iterate; a mark is noted before its batch is given."""
        for batch, mark in cast("Iterator[tuple[Batch, Mark]]", super().__iter__()):
            self._note(Mark(*mark))
            yield batch
