"""Counts the bytes that a step keeps and those that are alive, on real tensors and on tensors without values.

torch has no public name for modes that see every operation, nor for its walk through nested values.
Tried with torch 2.14.1.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Kept:
    """Storages that forward passes keep for the backward pass, each once; those of a model's weights do not count."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {StorageWeakRef(t.untyped_storage()) for t in (*model.parameters(), *model.buffers())}
        self._kept: dict[StorageWeakRef, int] = {}

    @property
    def bytes(self) -> int:
        """All of them together."""
        return sum(self._kept.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is kept meanwhile."""
        with saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference not in self._weights:
            self._kept[reference] = storage.nbytes()
        return tensor


def kept_bytes(forward: Callable[[], object], model: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, weights left out, each storage counted once."""
    kept = Kept(model)
    with kept.counting():
        result = forward()
    del result
    return kept.bytes


class MostAlive(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is active, and the most that existed at a time.

    It works on tensors without values too. What existed before, like weights, does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._known: set[StorageWeakRef] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it made."""
        if func is torch.ops.prim.device.default:  # half of all calls where tensors have no values
            return func(*args, **(kwargs or {}))
        before = {StorageWeakRef(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            reference = StorageWeakRef(storage)
            if reference not in before and reference not in self._known:
                self._add(reference, storage)
        return result

    def _add(self, reference: StorageWeakRef, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._known.add(reference)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._remove, reference, size)

    def _remove(self, reference: StorageWeakRef, size: int) -> None:
        self._known.discard(reference)
        self._now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
