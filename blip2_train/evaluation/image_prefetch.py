"""Reads images while the model works on those before."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from blip2_train.data.batches.processor import Processor

_READERS = min(8, os.cpu_count() or 1)
_BATCHES_AHEAD = 2


def read_ahead(processor: Processor, batches: Iterable[Sequence[Path]]) -> Iterator[Tensor]:
    """Pixel values `(B, 3, H, W)` of batches of B images, in order; a file that a batch names twice is read once.

    Raises:
        ShardError: naming a file that is no readable image.
    """
    waiting: deque[tuple[list[Path], dict[Path, Future[Tensor]]]] = deque()
    batches = iter(batches)
    readers = ThreadPoolExecutor(_READERS)
    try:
        while True:
            for paths in itertools.islice(batches, 1 + _BATCHES_AHEAD - len(waiting)):
                reading = {path: readers.submit(processor.image, path) for path in dict.fromkeys(paths)}
                waiting.append((list(paths), reading))
            if not waiting:
                return
            paths, reading = waiting.popleft()
            yield torch.stack([reading[path].result() for path in paths]) if paths else torch.empty(0)
    finally:
        readers.shutdown(cancel_futures=True)
