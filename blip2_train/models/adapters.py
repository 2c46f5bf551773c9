"""Low-rank adapters put beside, and merged into, linear layers of a model by the library peft (extra `peft`).

The one private method of peft's that is used registers quantised layers. Tried with peft 0.21.2.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from blip2_train.errors import ConfigError
from blip2_train.models.adapted_layers import ADAPTER_NAME, adapter_layers
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import AdapterConfig
from blip2_train.models.freezing import freeze
from blip2_train.models.language_model import FLOAT16_GRADIENT_SCALE, scale_gradient
from blip2_train.models.quantization import QuantizedLinear
from blip2_train.system.extras import import_extra

_QFORMER_DEFAULT = ["query", "value"]


def resolve_adapters(model: Blip2Model, config: AdapterConfig) -> AdapterConfig:
    """The same settings with their layers named; nothing is changed in the model, which may lie on the meta device.

    Raises:
        ConfigError: if peft is not installed, or the model has no such part or layer.
    """
    library, host = peft(), _host(model, config.target)
    available = _linear_names(host)
    layer_names = ", ".join(sorted({name.rpartition(".")[2] for name in available}))
    targets = config.target_modules
    if targets is None and isinstance(host, PreTrainedModel):
        known = library.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        targets = known.get(host.config.model_type)
        if targets is None:
            raise ConfigError(
                f"peft.target_modules: which layers of a {host.config.model_type} take adapters is not known; name "
                f"some of {layer_names}"
            )
    targets = sorted(set(targets or _QFORMER_DEFAULT))
    for name in targets:
        if not any(f".{layer}".endswith(f".{name}") for layer in available):
            raise ConfigError(
                f"peft.target_modules: {name!r} is no linear layer of the {config.target} that takes an adapter; there "
                f"are {layer_names}"
            )
    return replace(config, target_modules=targets)


def add_adapters(model: Blip2Model, config: AdapterConfig) -> None:
    """Give linear layers of a model adapters, which train; the part that they are in is frozen.

    They change nothing at first, have float32 weights whatever their layers have, and compute in them unless autocast
    is on.

    Args:
        model: With all its weights, quantised or not; changed in place.
        config: Which layers, and the sizes.

    Raises:
        ConfigError: if peft is not installed, or the model has no such part or layer.
    """
    config = resolve_adapters(model, config)
    host, settings = _host(model, config.target), lora_settings(config)
    settings._register_custom_module({QuantizedLinear: peft().tuners.lora.Linear})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Unsupported layer type.*")  # quantised layers, which it takes all the same
        warnings.filterwarnings("ignore", ".*fan_in_fan_out.*")  # GPT-2's layers, for which peft corrects it
        peft().inject_adapter_in_model(settings, host, adapter_name=ADAPTER_NAME)
    if config.target == "qformer" and hasattr(model, "embeddings"):
        freeze(model.embeddings)
    half = isinstance(host, PreTrainedModel) and host.dtype == torch.float16
    for layer in adapter_layers(host).values():
        for part in (layer.lora_A, layer.lora_B):
            part.float()
        if half:
            _undo_gradient_scale(layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME])
    model.adapters = config


def merge_adapters(model: Blip2Model) -> None:
    """Add what the adapters of a model have learnt to the weights of their layers, and take them out.

    Raises:
        ConfigError: if the layers are quantised.
    """
    for name, layer in adapter_layers(model).items():
        if isinstance(layer.get_base_layer(), QuantizedLinear):
            raise ConfigError("adapters cannot be merged into a quantised language model; pass quantization=none")
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())
    model.adapters = None


def lora_settings(config: AdapterConfig, **about: Any) -> Any:
    """The same settings as peft's `LoraConfig`; `about` is what else it takes."""
    return peft().LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        **about,
    )


@cache
def peft() -> Any:
    """The library behind it.

    Raises:
        ConfigError: if it is not installed.
    """
    logger = logging.getLogger("bitsandbytes")  # which peft imports, if it is there
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return import_extra("peft", "training with adapters", "or train without them (peft=none)")
    finally:
        logger.setLevel(level)


def _host(model: Blip2Model, target: str) -> nn.Module:
    part = getattr(model, target, None)
    if part is None:
        raise ConfigError(f"peft.target is {target}, which this model does not have; pass peft.target=qformer")
    return cast(nn.Module, part)


def _linear_names(host: nn.Module) -> list[str]:
    """Linear layers of a part, but not a vocabulary head, which is read from outside it."""
    head = host.get_output_embeddings() if isinstance(host, PreTrainedModel) else None
    kinds = (nn.Linear, Conv1D, QuantizedLinear)
    return [name for name, layer in host.named_modules() if isinstance(layer, kinds) and layer is not head]


def _undo_gradient_scale(down: nn.Module, up: nn.Module) -> None:
    """Give an adapter gradients of true size in a float16 model, inside which all are larger by a factor."""

    def enlarge(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (scale_gradient(inputs[0], FLOAT16_GRADIENT_SCALE), *inputs[1:])

    def reduce(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return scale_gradient(output, 1.0 / FLOAT16_GRADIENT_SCALE)

    down.register_forward_pre_hook(enlarge)
    up.register_forward_hook(reduce)
