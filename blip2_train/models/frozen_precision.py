"""The precision of the frozen parts of a model that is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from blip2_train.errors import ConfigError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.dtypes import DTYPES
from blip2_train.models.freezing import freeze
from blip2_train.models.quantization import QuantizedLinear


def cast_frozen_parts(network: Blip2Model, dtype: torch.dtype) -> None:
    """Bring the language model and the tower, which is frozen by it, to a precision; the Q-Former stays in float32.

    Raises:
        ConfigError: if they cannot compute in it.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"dtype {name} is unknown; use one of {', '.join(DTYPES)}")
    refuse_overflow(network, name)
    if network.vision_model.quantization != "none" or any(isinstance(m, QuantizedLinear) for m in network.modules()):
        raise ConfigError(f"{name}: a part of this model is in 8 or 4 bits; load it again with dtype={name!r}")
    if network.language_config is not None:
        cast(Any, network.language_model).to(dtype)
        network.language_config = replace(network.language_config, dtype=name)
    network.vision_model.frozen = True
    freeze(network.vision_model)
    network.vision_model.to(dtype)
    network.vision_config = replace(network.vision_config, dtype=name, frozen=True)


def refuse_overflow(network: Blip2Model, dtype: str) -> None:
    """Refuse float16 for language models whose states leave its range.

    Raises:
        ConfigError: if this is one.
    """
    if network.language_config is None or dtype != "float16":
        return
    family = network.language_model.config.model_type
    if "t5" in family:
        raise ConfigError(f"dtype float16: language model {family} overflows in it; choose bfloat16 or float32")
