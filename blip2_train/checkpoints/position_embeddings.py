"""Positions of a vision tower for another image size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.errors import CheckpointMismatch
from blip2_train.models.timm_without_wandb import resize_rel_pos_bias_table
from blip2_train.models.vision_tower import VisionTower

WHOLE = "vision_model.tower."
"""In front of timm's names in the weights of a whole model."""
_RELATIVE = "relative_position_bias_table"


def fit_positions(state: Mapping[str, Tensor], tower: VisionTower, prefix: str = WHOLE) -> dict[str, Tensor]:
    """The same weights, with everything that depends on the grid of patches resized to that of a tower.

    Learned positions are resampled as the released BLIP-2 code does; tables of relative positions (BEiT) as timm does.
    Rotary positions are computed, so that no weights hold them.

    Args:
        state: Weights of a model, all or some.
        tower: Its image size counts. Its positions show how many of its prefix tokens have one: all, or
            for none (towers with registers, DeiT III).
        prefix: In front of timm's names; empty for the weights of a tower alone.

    Raises:
        CheckpointMismatch: if a grid is not square.
    """
    fitted, expected = dict(state), dict(tower.tower.named_parameters())
    for name in state:
        target = expected.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if target is None or target.shape == state[name].shape or target.ndim != state[name].ndim:
            continue
        if name == f"{prefix}pos_embed":
            tokens, patches = target.shape[1], math.prod(tower.grid_size)
            fitted[name] = resize_position_embeddings(state[name], tokens=tokens, prefix_tokens=tokens - patches)
        elif name.endswith(_RELATIVE):
            resize: Any = resize_rel_pos_bias_table
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torch's, about timm's way of indexing
                fitted[name] = resize(state[name], new_window_size=tower.grid_size, new_bias_shape=target.shape)
    return fitted


def resize_position_embeddings(positions: Tensor, *, tokens: int, prefix_tokens: int) -> Tensor:
    """Resample learned positions of a square grid of patches, bicubic and not antialiased.

    Args:
        positions: `(1, prefix + n * n, Dv)`.
        tokens: Number of tokens, prefix included.
        prefix_tokens: Positions in front (that of the class token), which stay as they are.

    Returns:
        `(1, tokens, Dv)`; the input itself when the size does not change.

    Raises:
        CheckpointMismatch: if one of the two grids is not square.

    Source: the released BLIP-2 code for EVA towers. timm's own resampling is antialiased and gives other values.
    """
    if positions.shape[1] == tokens:
        return positions
    old, new = (math.isqrt(max(0, n - prefix_tokens)) for n in (positions.shape[1], tokens))
    if old * old + prefix_tokens != positions.shape[1] or new * new + prefix_tokens != tokens:
        raise CheckpointMismatch(
            f"position embeddings for {positions.shape[1]} tokens cannot be resized to {tokens}: both must be a square "
            f"grid plus {prefix_tokens} tokens; check image_size and the patch size"
        )
    prefix, grid = positions[:, :prefix_tokens], positions[:, prefix_tokens:]
    square = grid.float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(new, new), mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([prefix, resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)
