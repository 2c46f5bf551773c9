"""Which of the samples that a shuffle buffer holds is drawn next, as a pure function of (key, number of the draw)."""

from __future__ import annotations

import numpy as np

from blip2_train.data.stream.order import stable_seed

_AT_ONCE = 1024
"""Random words drawn at a time."""


class DrawOrder:
    """A shuffle buffer of numbers: items are counted as they are read, and leave in an order that the key decides.

    The buffer is filled before the first draw, and again after each; when nothing is left to read, it is drawn empty.
    What it holds after any number of draws follows from that number alone, so a run that goes on needs to keep no
    contents. Bits come from raw Philox words, whose stream numpy keeps stable between versions.

    Args:
        size: items held.
        key: decides the order.
    """

    def __init__(self, size: int, *key: object) -> None:
        self._size = size
        self._generator = np.random.Philox(key=stable_seed(*key))
        self._random: list[int] = []
        self.held: list[int] = []
        """Numbers of the items that were read and not drawn."""
        self.read = 0
        """Items read."""
        self.draws = 0
        self.ended = False
        """Whether nothing is left to read; set by the reader."""

    @property
    def wants_more(self) -> bool:
        """Whether another item is to be read before the next draw."""
        return not self.ended and len(self.held) < self._size

    def add(self) -> int:
        """Take in the next item; its number."""
        self.held.append(self.read)
        self.read += 1
        return self.held[-1]

    def draw(self) -> int:
        """The number of the item that is drawn next; the buffer must hold one."""
        if not self._random:
            self._random = self._generator.random_raw(_AT_ONCE)[::-1].tolist()
        position = self._random.pop() % len(self.held)
        self.held[position], self.held[-1] = self.held[-1], self.held[position]
        self.draws += 1
        return self.held.pop()

    def replay(self, draws: int, total: int | None) -> None:
        """Go, from the start, to where an earlier run stood.

        Args:
            draws: made by then.
            total: items there are, if that run had found the end by then.
        """
        for _ in range(draws):
            while self.wants_more and (total is None or self.read < total):
                self.add()
            self.ended = total is not None and self.read == total
            self.draw()
        self.ended = total is not None
