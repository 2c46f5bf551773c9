"""Measures the memory that a step needs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes that a step needs, and what they are."""

    peak_bytes: int
    peak_kind: str
    """What `peak_bytes` counts."""
    alive_bytes: int | None
    """On a CPU, the most that tensors took at a time, without those that were there before, like weights."""


class MostAlive(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is active, and the most that existed at a time.

    It works on tensors without values too. What existed before, like weights, does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it made."""
        before = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in before and storage._cdata not in self._known:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def step_memory(step: Callable[[], object], model: nn.Module, device: torch.device) -> StepMemory:
    """Memory of a step of a model.

    On a GPU the most that was allocated during the step, weights and optimiser included; on a CPU, where no such number
    exists, the tensors that the forward pass keeps for the backward pass, weights left out, each storage counted once.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        most = torch.cuda.max_memory_allocated()
        return StepMemory(peak_bytes=most, peak_kind="most allocated", alive_bytes=None)
    kept: dict[int, int] = {}
    weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with MostAlive() as alive, saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return StepMemory(peak_bytes=sum(kept.values()), peak_kind="kept for backward", alive_bytes=alive.most)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
