"""Position embeddings for another image size."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.errors import CheckpointMismatch


def resize_position_embeddings(positions: Tensor, *, tokens: int, prefix_tokens: int) -> Tensor:
    """Resample learned positions of a square grid of patches, bicubic and not antialiased.

    Args:
        positions: `(1, prefix + n * n, Dv)`.
        tokens: Wanted number of tokens, prefix included.
        prefix_tokens: Tokens in front (the class token), which stay as they are.

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
