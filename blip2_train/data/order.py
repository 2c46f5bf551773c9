"""The order in which the samples of one source are read, as a pure function of (seed, epoch, index)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blip2_train.errors import ConfigError


def stable_seed(*parts: object) -> int:
    """An integer below 2^63 that depends on the text of `parts` alone (Python's own hash changes from run to run).

    Parts may hold surrogates, with which Python represents names that are not UTF-8.
    """
    text = "\x1f".join(str(part) for part in parts).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@lru_cache(maxsize=128)
def permutation(size: int, *key: object) -> NDArray[np.int64]:
    """A permutation of `0 … size - 1` determined by `key`; read-only, as it is cached for the next call.

    It sorts raw Philox values, whose stream numpy keeps stable between versions (unlike `Generator.permutation`).
    """
    chosen = np.argsort(np.random.Philox(key=stable_seed(*key)).random_raw(size), kind="stable")
    chosen.setflags(write=False)
    return chosen


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """A new order of `size` samples for each epoch, with random access to each position.

    Blocks of neighbouring samples are permuted, so that reading stays nearly sequential on disk; then samples are
    permuted inside windows of the resulting sequence, so that a window mixes `window / block` blocks of the source. A
    source not larger than the window is shuffled uniformly. Memory is one integer per block and one per position of a
    window, for any size of the source.
    """

    size: int
    """Samples in the source."""
    seed: int
    name: str = ""
    """Name of the source; sources with different names are shuffled differently."""
    block: int = 256
    """Samples per block."""
    window: int = 16384
    """Samples per window."""

    def __post_init__(self) -> None:
        for key in ("size", "block", "window"):
            value = getattr(self, key)
            if value < 1:
                raise ConfigError(f"the order of source {self.name!r} needs {key} of at least 1, got {value}")

    def sample_at(self, epoch: int, position: int) -> int:
        """Index of the sample, 0 … `size - 1`, that is read at `position` of `epoch`.

        Args:
            epoch: completed passes over the source.
            position: 0 … `size - 1`. Over all positions of an epoch each sample comes exactly once.

        Raises:
            IndexError: if `position` is out of range.

        Example:
            >>> order = SampleOrder(size=5, seed=1, block=2, window=3)
            >>> sorted(order.sample_at(0, position) for position in range(5))
            [0, 1, 2, 3, 4]
        """
        if not 0 <= position < self.size:
            raise IndexError(f"position {position} is outside the {self.size} samples of source {self.name!r}")
        start = position - position % self.window
        length = min(self.window, self.size - start)
        inside = permutation(length, "window", self.seed, self.name, epoch, start)
        return self._after_blocks(epoch, start + int(inside[position - start]))

    def _after_blocks(self, epoch: int, position: int) -> int:
        """The sample at `position` of the sequence in which only blocks are permuted."""
        blocks = -(-self.size // self.block)
        order = permutation(blocks, "blocks", self.seed, self.name, epoch)
        missing = blocks * self.block - self.size
        if missing and position >= self._end_of_short_block(epoch, blocks, missing):
            position += missing
        return int(order[position // self.block]) * self.block + position % self.block

    def _end_of_short_block(self, epoch: int, blocks: int, missing: int) -> int:
        """Position after the last sample of the short block (the source's last), wherever that block was moved to."""
        return (_position_of_last(blocks, "blocks", self.seed, self.name, epoch) + 1) * self.block - missing


@lru_cache(maxsize=128)
def _position_of_last(size: int, *key: object) -> int:
    """Position of the largest entry of `permutation(size, *key)`."""
    return int(np.argmax(permutation(size, *key)))
