"""Runs a task on any number of processes: each batch exactly once, also after an interruption."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2_train.data.batches.image_inputs import PixelValues
from blip2_train.data.batches.processor import Processor
from blip2_train.distributed import from_first, gather_objects, rank, world_size
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.predictions import PredictionLog
from blip2_train.evaluation.task import EvaluationTask, Row, TaskScores

Progress = Callable[[str, int, int], None]
"""Called with what is going on, the number of finished batches, and of all."""
_READERS = min(8, os.cpu_count() or 1)
_BATCHES_AHEAD = 2


def run_task(
    model: Blip2, task: EvaluationTask, folder: Path, settings: Mapping[str, Any], progress: Progress
) -> tuple[list[Row], TaskScores]:
    """Predict the batches that are not predicted yet, then score all; every process calls it and gets the same result.

    Args:
        model: On this process's device.
        task: The task to evaluate.
        folder: Folder of the predictions, earlier ones included.
        settings: Further values that decide the predictions: the model's fingerprint, precision, batch size.
        progress: Called after each batch of this process.

    Raises:
        ConfigError: if the model cannot do the task, or the folder holds predictions of other settings.
    """
    encodes_first = getattr(task, "encodes_first", False)  # tasks of one's own need not inherit from `EvaluationTask`
    task.start(model)
    log = PredictionLog(folder, task.name, {**settings, **task.settings()})
    own = range(rank(), len(task), world_size())
    if encodes_first:
        encoded = zip(own, read_ahead(model.processor, map(task.paths, own)), strict=True)
        for count, (batch, pixel_values) in enumerate(encoded, 1):
            task.encode(model, batch, pixel_values)
            progress(f"{task.name}: encoding", count, len(own))
        task.exchange(model)
    mine = [batch for batch in own if batch not in log.done]
    images = read_ahead(model.processor, ([] if encodes_first else task.paths(batch) for batch in mine))
    with log:
        for count, (batch, pixel_values) in enumerate(zip(mine, images, strict=True), 1):
            log.write(batch, task.predict(model, batch, pixel_values))
            progress(task.name, count, len(mine))
    gather_objects(None)  # every process has written
    rows = log.rows()
    return rows, from_first(lambda: task.score(rows))


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
            yield PixelValues.of(torch.stack([reading[path].result() for path in paths]) if paths else torch.empty(0))
    finally:
        readers.shutdown(cancel_futures=True)
