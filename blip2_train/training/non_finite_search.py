"""Runs a micro-batch again to find the first module whose output or gradient is not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from blip2_train.training.module import TrainingModule
from blip2_train.types import Batch

KINDS = ("input", "output of", "loss", "gradient at", "nothing")
"""What can be found, the earliest in a step first."""


@dataclass(frozen=True)
class Finding:
    """Where a loss or gradient began not to be finite."""

    what: str = "nothing"
    """One of `KINDS`."""
    where: str = "that happens when the step runs again"
    """Name of a module, of a parameter, or of a field of the batch."""


def first_non_finite(module: TrainingModule, batch: Batch, micro_batch: int) -> Finding:
    """Run a micro-batch again as it ran; every process must call it, as the objective exchanges features.

    The gradient is taken without adding to that of the parameters. A sharded model (`trainer=fsdp`) runs forward only.

    Args:
        module: Before its optimiser step.
        batch: This process's samples, on its device.
        micro_batch: Index within the optimiser step, which chooses the random numbers.
    """
    findings: list[Finding] = []
    if not batch.pixel_values.isfinite().all():
        findings.append(Finding("input", "pixel_values"))
    backward = not isinstance(module, FSDPModule)
    handles = [
        part.register_forward_hook(_watch(name, findings)) for name, part in module.model.named_modules() if name
    ]
    module.seed_micro_batch(micro_batch)
    module.repeats = True
    try:
        with (
            module.trainer.precision_plugin.train_step_context(),
            torch.set_grad_enabled(backward),
            torch.compiler.set_stance("force_eager"),  # of compiled modules no inner one could be watched
        ):
            loss: Any = module.training_step(batch, micro_batch)
        if not loss.isfinite():
            findings.append(Finding("loss", "the objective, after every module"))
        if backward:
            named = [(name, p) for name, p in module.model.named_parameters() if p.requires_grad]
            gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
            for (name, _), gradient in zip(named, gradients, strict=True):
                if gradient is not None and not gradient.isfinite().all():
                    findings.append(Finding("gradient at", name))
    finally:
        module.repeats = False
        for handle in handles:
            handle.remove()
    return findings[0] if findings else Finding()


def _watch(name: str, findings: list[Finding]) -> Callable[..., None]:
    """A forward hook that checks the output of a module, and in the backward pass the gradient that reaches it."""

    def check_gradient(gradient: Tensor) -> None:
        if not gradient.isfinite().all():
            findings.append(Finding("gradient at", name))

    def check_output(part: Any, inputs: Any, output: Any) -> None:
        for tensor in _tensors(output):
            if not tensor.isfinite().all():
                findings.append(Finding("output of", name))
            if tensor.requires_grad:
                tensor.register_hook(check_gradient)

    return check_output


def _tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in what a module returns."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
