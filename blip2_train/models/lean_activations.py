"""Layers of a frozen language model that keep less for the backward pass and compute the same.

Outputs are the same bits, and so are the gradients of a ReLU; those of a norm differ by the order in which the terms of
a sum are added.
"""

from __future__ import annotations

from functools import cache
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def keep_less(model: nn.Module) -> None:
    """Let every ReLU of a frozen model keep one byte per number, and every RMS norm its input alone.

    Parameters, their names and what the model computes do not change. transformers' RMS norms (T5's, Llama's, …) keep a
    copy of their input in float32 beside it.

    Args:
        model: Changed in place; norms whose weights train stay as they are.
    """
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if type(part) is nn.ReLU:
                setattr(module, name, SignReLU())
            elif _is_rms_norm(part) and not any(parameter.requires_grad for parameter in part.parameters()):
                kind: Any = type(part)
                part.__class__ = _recomputed(kind)


def plain_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a module had before `keep_less`, where that has changed it."""
    return kind.__mro__[2] if issubclass(kind, _RecomputedNorm) else kind


class SignReLU(nn.Module):
    """ReLU whose backward pass needs only where the output is not positive, not the output."""

    def forward(self, states: Tensor) -> Tensor:
        """The positive part of any tensor."""
        if not (torch.is_grad_enabled() and states.requires_grad):
            return F.relu(states)
        return cast(Tensor, _SignReLU.apply(states))


class _SignReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        output = F.relu(states)
        ctx.save_for_backward(output <= 0)  # not `~(output > 0)`: torch lets the gradient of NaN pass
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (closed,) = ctx.saved_tensors
        return gradients[0].masked_fill(closed, 0.0)


class _RecomputedNorm(nn.Module):
    """In front of a norm's class: the norm is computed again in the backward pass from its input."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """As the norm's own class."""
        plain: Any = super().forward
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and hidden_states.requires_grad):
            return cast(Tensor, plain(hidden_states))
        return cast(Tensor, _Recomputed.apply(hidden_states, plain))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickled by the norm's own class, as this one has no place of its own to be found at."""
        return _rebuilt, (plain_class(type(self)), self.__dict__.copy())


class _Recomputed(torch.autograd.Function):
    """A function of one tensor, without parameters that train and without autocast's matrix products."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, function: Any) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(states)
        output: Tensor = function(states)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (states,) = ctx.saved_tensors
        with torch.enable_grad():
            again = states.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(ctx.function(again), again, gradients)
        return gradient, None


def _rebuilt(kind: type[nn.Module], state: dict[str, Any]) -> nn.Module:
    changed: Any = _recomputed(cast(Any, kind))
    module: nn.Module = changed.__new__(changed)
    module.__setstate__(state)
    return module


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether it is one of transformers' norms by the root of the mean square, which have one weight and no bias."""
    name = type(module).__name__
    own = name.endswith(("RMSNorm", "T5LayerNorm"))
    return own and not isinstance(module, _RecomputedNorm) and [n for n, _ in module.named_parameters()] == ["weight"]


@cache
def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_RecomputedNorm, kind), {"__module__": kind.__module__})
