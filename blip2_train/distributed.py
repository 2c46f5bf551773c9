"""Exchanges between processes; every function is the identity when there is one process."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Index of this process, 0 … `world_size() - 1`."""
    return dist.get_rank() if is_distributed() else 0


class _GatherWithGradient(torch.autograd.Function):
    """All-gather whose backward sums the gradients of all processes for each row, and returns each process its rows.

    The incoming gradient is made contiguous first: gloo reads raw storage and silently returns wrong sums otherwise.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = rows.shape[0]
        return gather_rows(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        start = rank() * ctx.rows
        return summed[start : start + ctx.rows]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes in rank order, without gradient.

    Args:
        rows: `(B, …)`, the same shape on every process.

    Returns:
        `(N, …)` with N = B × processes, detached.
    """
    rows = rows.detach()
    if not is_distributed():
        return rows
    if rows.dtype == torch.bool:
        return gather_rows(rows.to(torch.uint8)).to(torch.bool)
    gathered = rows.new_empty((world_size() * rows.shape[0], *rows.shape[1:]))
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its name before torch 2.14
    gather(gathered, rows.contiguous())
    return gathered


def gather_rows_with_gradient(rows: Tensor) -> Tensor:
    """Rows of all processes in rank order; the gradient of every process reaches the process that owns a row.

    With the mean over processes that data-parallel training takes, the gradient equals that of one process that holds
    all rows, if each process's loss is the mean over its own rows.

    Args:
        rows: `(B, …)`, the same shape on every process.

    Returns:
        `(N, …)` with N = B × processes.
    """
    if not is_distributed():
        return rows
    return _GatherWithGradient.apply(rows)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on `device`, pinned before it is copied, so that a GPU is not waited for."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class _AllToAll(torch.autograd.Function):
    """All-to-all of rows; backward takes the gradients the same way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        ctx.counts = received, sent
        return _all_to_all(rows, sent, received)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _all_to_all(gradients[0], *ctx.counts), None, None


def _all_to_all(rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Rows `(S, …)` to `(R, …)`: `sent[r]` of them go to process r, `received[r]` come from it.

    They travel as bytes, so that no backend needs to know their dtype.
    """
    fetched = rows.new_empty((sum(received), *rows.shape[1:]))
    bytes_of = [part.reshape(len(part), math.prod(part.shape[1:])).view(torch.uint8) for part in (fetched, rows)]
    dist.all_to_all_single(bytes_of[0], bytes_of[1].contiguous(), received, sent)
    return fetched


def exchange_rows(rows: Tensor, requests: Sequence[Tensor]) -> Tensor:
    """The rows that this process requests, from whichever processes hold them; no others travel.

    Every process must call it with the same `requests`, so these do not travel.

    Args:
        rows: `(B, …)`, this process's rows, the same shape on every process; global position of row b is
            `rank() * B + b`. If they require gradient (features of a trained tower), it flows back to the process that
            holds them; those of a frozen one do not.
        requests: For each process its global positions, `(R,)`, int64, on the CPU; R may differ, and be 0.

    Returns:
        `(R, …)`, in the order of this process's positions.
    """
    count, here, mine = rows.shape[0], rank(), requests[rank()]
    if not is_distributed():
        return rows.index_select(0, to_device(mine, rows.device))
    owners = torch.div(mine, count, rounding_mode="floor")
    leaving = [positions[torch.div(positions, count, rounding_mode="floor") == here] % count for positions in requests]
    outgoing = rows.index_select(0, to_device(torch.cat(leaving), rows.device))
    sent, received = list(map(len, leaving)), torch.bincount(owners, minlength=world_size()).tolist()
    exchange = _AllToAll.apply if outgoing.requires_grad else _all_to_all
    arrived: Tensor = exchange(outgoing, sent, received)
    order = torch.empty_like(mine).scatter_(0, owners.argsort(stable=True), torch.arange(len(mine)))
    return arrived.index_select(0, to_device(order, rows.device))


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over processes, without gradient."""
    value = value.detach().clone()
    if is_distributed():
        dist.all_reduce(value)
        value /= world_size()
    return value


patience: timedelta | None = None
"""How long an exchange waits for the other processes; None = as long as torch does."""
_cpu_group: Any = None


def _group_for_plain_numbers() -> Any:
    """A gloo group beside NCCL, so that exchanging a Python number does not wait for the GPU."""
    global _cpu_group
    if dist.get_backend() == "gloo":
        return None
    if _cpu_group is None:
        _cpu_group = dist.new_group(backend="gloo", timeout=patience)
    return _cpu_group


def largest_over_processes(number: int) -> int:
    """The largest of the numbers of all processes; does not synchronise a GPU."""
    if not is_distributed():
        return number
    box = torch.tensor([number], dtype=torch.int64)
    dist.all_reduce(box, op=dist.ReduceOp.MAX, group=_group_for_plain_numbers())
    return int(box)


def true_in_any_process(flag: Tensor) -> bool:
    """Whether a flag is true in any process; waits for the device once, for what the device exchanges itself.

    Args:
        flag: Scalar, bool.
    """
    if is_distributed():
        flag = flag.to(torch.int32)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes in rank order, on every process (plain Python values, by way of the CPU)."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_group_for_plain_numbers())
    return values


def gather_uneven(rows: Tensor, group: Any = None) -> list[Tensor]:
    """The tensors of all processes in rank order, whatever their sizes, without the empty ones.

    The `dist_sync_fn` of this project's torchmetrics objects. Their default takes what a process without a single
    sample holds, `(0,)` of another dtype, for rows like any others.

    Args:
        rows: Of any shape; `(0,)` from a process that has nothing.
        group: Ignored: exchanged by way of the CPU.

    Returns:
        On the device of `rows`.
    """
    return [part.to(rows.device) for part in gather_objects(rows.detach().cpu()) if part.numel()] or [rows]


def from_first(make: Callable[[], T]) -> T:
    """The result of the first process, on every process; an error that it raises is raised by all.

    Args:
        make: Called in the first process only; what it returns or raises must be picklable.
    """
    if not is_distributed():
        return make()
    result: Any = None
    error: Exception | None = None
    if rank() == 0:
        try:
            result = make()
        except Exception as raised:
            error = raised
    result, error = gather_objects((result, error))[0]
    if error is not None:
        raise error
    return cast(T, result)


def leave_group() -> None:
    """Leave the group of processes, so that this one can end; without effect outside of one.

    A thread of gloo that lets go of a tensor while Python ends aborts the process, and with it the whole run
    (https://github.com/pytorch/pytorch/issues/190489). The threads end with the last object that refers to the group,
    models and trainers included.
    """
    global _cpu_group
    _cpu_group = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
