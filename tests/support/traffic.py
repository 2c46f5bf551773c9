"""Counts the bytes that a process receives from others, by operation, where torch hands them to its backend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Traffic(TorchDispatchMode):
    """While it is entered, counts what every collective operation brings, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.received: Counter[str] = Counter()
        """Bytes by the operation's name and the dtype: `alltoall_base_ torch.uint8`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function._schema.name.removeprefix("c10d::")
            received, dtype = _received(name, args)
            self.received[f"{name} {dtype}"] += received
        return function(*args, **(kwargs or {}))


def _received(name: str, args: Any) -> tuple[int, torch.dtype]:
    """Bytes from other processes, and their dtype."""
    processes, rank = dist.get_world_size(), dist.get_rank()
    if name == "alltoall_base_":
        output, splits = args[0], args[3]
        return sum(rows for r, rows in enumerate(splits) if r != rank) * _bytes([output[:1]]), output.dtype
    if name == "_allgather_base_":
        return _bytes([args[0]]) * (processes - 1) // processes, args[0].dtype
    if name in ("allreduce_", "broadcast_"):
        return _bytes(args[0]), args[0][0].dtype
    raise NotImplementedError(f"bytes of c10d::{name}")


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors)


def for_negatives(received: Mapping[str, int]) -> int:
    """Bytes that came for the sake of negatives: rows and texts, and which ones were chosen."""
    return sum(count for kind, count in received.items() if kind.startswith("alltoall") or kind.endswith("int64"))
