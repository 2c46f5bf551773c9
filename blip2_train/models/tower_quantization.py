"""Runs the linear layers of a frozen vision tower in 8 bits, weights and inputs, by torchao (extra `quantization`).

For speed: products of 8-bit numbers are up to twice as fast as those of 16 bits. (The language model's quantisation,
`quantization.py`, is for memory: its products run in 16 bits.) It acts on a tower that has its weights: files, exports
and fingerprints are those of the tower without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from blip2_train.errors import ConfigError
from blip2_train.models.vision_tower import VisionTower
from blip2_train.system.extras import import_extra

TOWER_QUANTIZATIONS = ("none", "int8", "float8")
_MULTIPLE = 16
"""Sizes of a matrix that kernels of 8-bit products take are multiples of it."""
_FLOAT8_SINCE = (8, 9)
"""Compute capability of GPUs with products of float8."""


def check_tower_quantization(quantization: str, what: str) -> None:
    """Refuse what is none of `TOWER_QUANTIZATIONS`.

    Args:
        quantization: The value.
        what: The setting, for messages.

    Raises:
        ConfigError: naming the setting.
    """
    if quantization not in TOWER_QUANTIZATIONS:
        raise ConfigError(f"{what} {quantization!r} is unknown; use one of {', '.join(TOWER_QUANTIZATIONS)}")


def quantize_tower(tower: VisionTower, quantization: str, what: str = "vision_quantization") -> None:
    """Let a frozen tower compute the products of its blocks' linear layers in 8 bits from now on.

    Weights get one scale per output, inputs one per token, found as they come. Norms, attention, embeddings and layers
    whose sizes are no multiples of 16 stay as they are.

    Args:
        tower: With its weights, on the device on which it will run; changed in place.
        quantization: `int8` (GPUs since Ampere; CPUs), `float8` (GPUs since Ada and Hopper; the tower becomes a
            bfloat16 one), or `none`, which changes nothing.
        what: The setting, for messages.

    Raises:
        ConfigError: if the tower trains or has no such layers, the device cannot do it, or torchao is not installed.
    """
    check_tower_quantization(quantization, what)
    if quantization == "none" or tower.quantization == quantization:
        return
    setting = f"{what}={quantization}"
    if not tower.frozen or tower.quantization != "none":
        state = "trains" if not tower.frozen else f"is in {tower.quantization} already"
        raise ConfigError(f"{setting} is for a frozen vision tower, but this one {state}; pass {what}=none")
    if quantization == "float8":
        _require_float8(next(tower.parameters()).device, setting, what)
    torchao = library(quantization, what)
    if quantization == "float8":
        tower.to(torch.bfloat16)
        config = torchao.Float8DynamicActivationFloat8WeightConfig(
            granularity=torchao.PerRow(), set_inductor_config=False
        )
    else:
        config = torchao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    chosen = {module for block in tower.blocks for module in block.modules() if _fits(module)}
    if not chosen:
        raise ConfigError(
            f"{setting}: the tower has no linear layers whose sizes are multiples of {_MULTIPLE}; pass {what}=none"
        )
    for block in tower.blocks:
        _join_biases(block)
    torchao.quantize_(tower, config, filter_fn=lambda module, name: module in chosen)
    tower.requires_grad_(False)
    tower.quantization = quantization


def library(quantization: str, what: str) -> Any:
    """The module of torchao that quantises.

    Args:
        quantization: `int8` or `float8`.
        what: The setting, for messages.

    Raises:
        ConfigError: if it is not installed.
    """
    return import_extra("torchao.quantization", f"{what}={quantization}", f"or pass {what}=none")


def plain_weights(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Named weights, those in 8 bits as the plain tensors that they consist of."""
    for name, tensor in tensors:
        parts: Any = getattr(tensor, "__tensor_flatten__", None)
        if parts is None:
            yield name, tensor
            continue
        for part in parts()[0]:
            yield f"{name}.{part}", getattr(tensor, part)


def _fits(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0


def _join_biases(block: nn.Module) -> None:
    """Give the projection of timm's EVA and BEiT towers its bias, which they add in a call that torchao cannot take."""
    for part in block.modules():
        biases = [getattr(part, f"{name}_bias", None) for name in "qkv"]
        projection: Any = getattr(part, "qkv", None)
        if isinstance(projection, nn.Linear) and projection.bias is None and all(b is not None for b in biases):
            joined = torch.cat([bias.detach() for bias in biases if bias is not None])
            projection.bias = nn.Parameter(joined, requires_grad=False)
            attention: Any = part
            attention.q_bias = attention.v_bias = None


def _require_float8(device: torch.device, setting: str, what: str) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FLOAT8_SINCE:
        return
    raise ConfigError(f"{setting} needs a GPU since Ada or Hopper, the tower is on {device}; pass {what}=int8")
