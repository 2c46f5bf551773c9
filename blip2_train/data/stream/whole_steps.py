"""Micro-batches of a loader, the first of each optimiser step together with the others of that step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from blip2_train.types import ImageTextBatch


class _Loader(Sized, Iterable[ImageTextBatch], Protocol):
    """What is read from."""


class WholeSteps:
    """Reads the micro-batches of a step before it gives the first of them, which then holds the others (`following`).

    Number and order of micro-batches stay the same.

    Args:
        loader: Gives this process's micro-batches, from the first of a step on.
        accumulate: Micro-batches per step.
    """

    def __init__(self, loader: Any, accumulate: int) -> None:
        self.loader: _Loader = loader
        self.accumulate = accumulate

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[ImageTextBatch]:
        batches = iter(self.loader)
        while step := list(islice(batches, self.accumulate)):
            first, *others = step
            yield replace(first, following=tuple(others))
            yield from others
