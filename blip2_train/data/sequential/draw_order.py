"""The order in which a shuffle buffer is drawn, as a pure function of (key, index of the draw)."""

from __future__ import annotations

import numpy as np

from blip2_train.data.order import stable_seed

_AT_ONCE = 1024
"""Random values drawn at a time."""


class DrawOrder:
    """A shuffle buffer of item indices: items are counted when read, and drawn in an order determined by the key.

    The buffer is filled before the first draw, and again after each; at the end of the items, it is drawn empty. Its
    content after any number of draws follows from that number alone, so a checkpoint need not contain it. Bits come
    from raw Philox values, whose stream numpy keeps stable between versions.

    Args:
        size: items in the buffer.
        key: determines the order.
    """

    def __init__(self, size: int, *key: object) -> None:
        self._size = size
        self._generator = np.random.Philox(key=stable_seed(*key))
        self._random: list[int] = []
        self.held: list[int] = []
        """Indices of the items that were read and not drawn."""
        self.read = 0
        """Items read."""
        self.draws = 0
        self.ended = False
        """Whether all items were read; set by the caller."""

    @property
    def wants_more(self) -> bool:
        """Whether another item is to be read before the next draw."""
        return not self.ended and len(self.held) < self._size

    def add(self) -> int:
        """Add the next item; returns its index."""
        self.held.append(self.read)
        self.read += 1
        return self.held[-1]

    def draw(self) -> int:
        """Draw an item; returns its index. The buffer must not be empty."""
        if not self._random:
            self._random = self._generator.random_raw(_AT_ONCE)[::-1].tolist()
        position = self._random.pop() % len(self.held)
        self.held[position], self.held[-1] = self.held[-1], self.held[position]
        self.draws += 1
        return self.held.pop()

    def replay(self, draws: int, total: int | None) -> None:
        """Advance from the start to the state of an earlier run.

        Args:
            draws: its number of draws.
            total: total number of items, if that run had reached their end; else None.
        """
        for _ in range(draws):
            while self.wants_more and (total is None or self.read < total):
                self.add()
            self.ended = total is not None and self.read == total
            self.draw()
        self.ended = total is not None
