"""Ends a run of several processes, with one line, when one of them dies or is silent for too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from blip2_train import distributed
from blip2_train.errors import ConfigError, TrainingError

PATIENCE = 1800.0
"""Seconds; what one process does alone while the others wait (indexing shards, scoring captions) takes less."""
_SILENT = ("timed out", "timeout")
_GONE = ("connection closed", "connection reset", "broken pipe", "socket", "connection was likely closed")


class DataParallelStrategy(DDPStrategy):
    """Lightning's data parallelism, in which a process that waits too long for the others ends the run.

    With gloo, and for what processes on GPUs exchange by way of the CPU, the wait ends in an error that becomes one
    line. What NCCL exchanges is ended by its own watchdog (on by default) after the same time, with a text of its own
    and SIGABRT. In both cases torchrun ends the processes that are left, 30 s later unless configured otherwise.

    Gradients lie in the buffers that the processes exchange, not in a copy beside them: as many bytes less as what
    trains has in float32.

    Args:
        patience: Seconds that a process waits for the others.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        super().__init__(timeout=wait_at_most(patience), gradient_as_bucket_view=True)


def wait_at_most(seconds: float) -> timedelta:
    """Make this the longest time that an exchange between processes waits.

    Raises:
        ConfigError: if it is not above 0.
    """
    if not seconds > 0:
        raise ConfigError(f"trainer.strategy.patience must be above 0 seconds, got {seconds}")
    distributed.patience = timedelta(seconds=seconds)
    return distributed.patience


@contextmanager
def timeout_in_one_line(folder: Path) -> Iterator[None]:
    """Turn the error of an exchange that failed because another process is gone into one line.

    Args:
        folder: The run folder, with its checkpoints.

    Raises:
        TrainingError: in every process that is left.
    """
    try:
        yield
    except RuntimeError as error:
        if (why := _why(error)) is None:
            raise
        if not any(folder.glob("checkpoints/step_*.ckpt")):
            folder = Path("<run folder>")
        raise TrainingError(
            f"process {distributed.rank()} of {distributed.world_size()} cannot reach the others: {why}. Look for "
            "its error above, or whether the system ended it (memory); the whole run ends now, and goes on "
            f"from its newest checkpoint with resume_from={folder}"
        ) from error


def _why(error: RuntimeError) -> str | None:
    """What happened to another process, if the error is of that kind."""
    text = str(error).lower()
    if "gloo" not in text and not isinstance(error, dist.DistError):
        return None
    if any(words in text for words in _SILENT):
        seconds = distributed.patience.total_seconds() if distributed.patience else PATIENCE
        return f"one of them was silent for more than the {seconds:g} s of trainer.strategy.patience, it hangs"
    if any(words in text for words in _GONE) or isinstance(error, dist.DistError):
        return f"one of them died ({str(error).splitlines()[0][:200]})"
    return None
