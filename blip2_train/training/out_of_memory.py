"""Ends a run whose device has too little memory with one line that names the setting to change and its new value."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from blip2_train import distributed
from blip2_train.errors import TrainingError

_SIGNS = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HIP out of memory",
    "MPS backend out of memory",
)
"""What messages say where memory ended outside of torch's own allocator, in errors that are no `OutOfMemoryError`: a
library that asks for its workspace, the driver, and devices other than CUDA's."""


@contextmanager
def out_of_memory_in_one_line(global_batch_size: int, accumulate: int, world_size: int) -> Iterator[None]:
    """Turn the error of a device that has too little memory into one line.

    Args:
        global_batch_size: Samples per optimiser step, over all processes and micro-batches.
        accumulate: Micro-batches per optimiser step.
        world_size: Processes that train together.

    Raises:
        TrainingError: naming the setting to change.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        advice = TrainingError(_advice(names, global_batch_size, accumulate, world_size, str(error)))
    else:
        return
    raise advice from None  # torch prints a hundred lines of its own


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS)


def larger_accumulation(global_batch_size: int, accumulate: int, world_size: int) -> int | None:
    """The next number of micro-batches into which a step can be cut; None if its micro-batches hold one sample.

    Example:
        >>> larger_accumulation(1680, 16, 1), larger_accumulation(64, 4, 8), larger_accumulation(8, 1, 8)
        (20, 8, None)
    """
    share = global_batch_size // world_size
    return next((parts for parts in range(accumulate + 1, share + 1) if share % parts == 0), None)


def _advice(names: set[str], global_batch_size: int, accumulate: int, world_size: int, error: str) -> str:
    """What was done when memory ended, by the functions that were running, and what needs less."""
    detail = ". ".join(" ".join(error.split()).split(". ")[:2])[:250]
    start = f"process {distributed.rank()} of {world_size} has too little memory"
    smaller = "a smaller model, or model.language.quantization=int8 (or int4) for its language model"
    sharded = "trainer=fsdp on several GPUs, which shards the model, "
    if "validation_step" in names:
        return f"{start} for a validation ({detail}): lower data.eval_batch_size, or pass validate_every=null"
    if not {"training_step", "optimizer_step", "backward", "advance"} & names:
        return f"{start} for the model itself ({detail}): use {sharded}{smaller}"
    micro = global_batch_size // world_size // accumulate
    parts = larger_accumulation(global_batch_size, accumulate, world_size)
    if parts is None:
        return f"{start} for a step of one sample ({detail}): use {sharded}{smaller}"
    return (
        f"{start} for micro-batches of {micro} samples ({detail}): pass accumulate={parts} (micro-batches of "
        f"{global_batch_size // world_size // parts}; the step stays {global_batch_size} samples), or use {sharded}"
        f"{smaller}; a run that has a checkpoint goes on with resume_from=last"
    )
