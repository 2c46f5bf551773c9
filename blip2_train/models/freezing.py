"""What is frozen, what trains, what is kept, and what each part costs in memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from blip2_train.models.adapted_layers import plain_name
from blip2_train.models.quantization import QuantizedLinear

FROZEN_PARTS = ("vision_model", "language_model")
"""Parts whose frozen weights have a file of their own, which checkpoints and exports name instead of holding them."""


def freeze(module: nn.Module) -> None:
    """Take a module's parameters out of training; keeping it in eval mode is the module's own duty."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def trainable_names(module: nn.Module) -> set[str]:
    """Names of the parameters that train."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def kept_names(module: nn.Module) -> set[str]:
    """Names of the parameters that checkpoints hold: what trains, and what is frozen but has no other file.

    The latter are the weights of a Q-Former with adapters.
    """
    elsewhere = set(_frozen_elsewhere(module))
    return {name for name, _ in module.named_parameters() if name not in elsewhere}


def frozen_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The frozen weights that checkpoints do not hold, by the names that they have without adapters."""
    return {plain_name(name): parameter for name, parameter in _frozen_elsewhere(module).items()}


def _frozen_elsewhere(module: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad and not set(FROZEN_PARTS).isdisjoint(name.split("."))
    }


@dataclass(frozen=True, kw_only=True)
class PartSize:
    """One part of a model."""

    name: str
    parameters: int
    """Number of parameters, quantised or not; a tied parameter counts where it is first met."""
    trainable: int
    """Number of parameters that train."""
    weight_bytes: int
    training_bytes: int
    """Bytes of gradients and of AdamW's two moments."""


def describe_parameters(module: nn.Module) -> list[PartSize]:
    """Size of each direct child and direct parameter of `module`, in order of definition."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        groups.setdefault(name.split(".")[0], []).append(parameter)
    unpacked = dict.fromkeys(groups, 0)
    for name, part in module.named_modules():
        if isinstance(part, QuantizedLinear):
            unpacked[name.split(".")[0]] += part.surplus
    return [
        PartSize(
            name=name,
            parameters=sum(p.numel() for p in parameters) + unpacked[name],
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
            training_bytes=sum(3 * p.numel() * p.element_size() for p in parameters if p.requires_grad),
        )
        for name, parameters in groups.items()
    ]
