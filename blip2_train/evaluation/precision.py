"""The precision in which a trained model is used."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from blip2_train.models.blip2 import Blip2Model


def suitable_autocast(network: Blip2Model) -> AbstractContextManager[Any]:
    """On a GPU, the parts kept in float32 compute in the 16 bits of the frozen part, if that has 16; else as they are.

    The frozen part is the language model, or the tower where there is none. Both run in their own precision anyway.
    """
    dtype, device = network.frozen_dtype, network.query_tokens.device.type
    if device == "cuda" and dtype in (torch.float16, torch.bfloat16):
        return torch.autocast(device, dtype)
    return nullcontext()
