"""Precisions of weights by the names that configurations give them."""

from __future__ import annotations

import torch

from blip2_train.models.configs import DTYPE_NAMES

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
"""Types of torch by name."""
