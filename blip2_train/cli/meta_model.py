"""A recipe's model without one weight, for commands that count and check."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from blip2_train.config.compose import instantiate
from blip2_train.models.blip2 import Blip2Model


def meta_model(config: DictConfig) -> Blip2Model:
    """The model with its adapters, as it trains, on the meta device.

    Args:
        config: From `compose`.

    Raises:
        Blip2TrainError: if it cannot be built.
    """
    with torch.device("meta"):
        model: Blip2Model = instantiate(config.model)
        if config.peft is not None:
            from blip2_train.models.adapters import add_adapters  # which loads what a plain model does not need

            add_adapters(model, instantiate(config.peft))
    return model
