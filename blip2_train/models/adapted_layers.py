"""Linear layers with adapters, as the rest of a model uses them; peft itself is not needed for it.

A linear layer `q_proj` that peft has given an adapter holds `q_proj.base_layer.weight` (frozen),
`q_proj.lora_A.default.weight` `(r, in)` and `q_proj.lora_B.default.weight` `(out, r)`.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

ADAPTER_NAME = "default"
"""peft can hold several adapters by name; here there is one."""
_OWN = re.compile(rf"\.lora_[AB]\.{ADAPTER_NAME}\.")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter.

    Example:
        >>> is_adapter("qformer.query.lora_A.default.weight"), is_adapter("qformer.query.base_layer.weight")
        (True, False)
    """
    return _OWN.search(name) is not None


def plain_name(name: str) -> str:
    """The name that a parameter has without adapters.

    Example:
        >>> plain_name("decoder.q_proj.base_layer.weight")
        'decoder.q_proj.weight'
    """
    return name.replace(".base_layer.", ".")


def adapter_layers(module: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by name: layers of peft's class `LoraLayer`."""
    return {name: layer for name, layer in module.named_modules() if hasattr(layer, "lora_A")}


def adapted_weight(linear: nn.Linear) -> Tensor:
    """The weight `(out, in)` that a linear layer computes with, the change by its adapter added if it has one."""
    layer: Any = linear
    if not hasattr(layer, "lora_A"):
        return linear.weight
    weight: Tensor = layer.weight + layer.get_delta_weight(ADAPTER_NAME)
    return weight


def train_adapters(module: nn.Module, mode: bool) -> None:
    """Switch the dropout of adapters on or off, whatever mode the layers around them are in."""
    for layer in adapter_layers(module).values():
        layer.lora_dropout.train(mode)
