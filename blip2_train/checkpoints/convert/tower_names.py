"""Vision transformers in the names of the projects that published them, by timm's own conversion."""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import VisionTower, create_timm_tower

BEYOND_THE_FEATURES = ("norm.", "fc_norm.", "head.", "head_dist.", "head_drop.", "attn_pool.")
"""What timm's models have behind their blocks."""
_PATCHES = ("patch_embed.proj.weight", "visual.conv1.weight", "patch_embed.projection.weight")


def to_timm_names(state: Mapping[str, Tensor], tower: VisionTower, config: VisionConfig) -> Mapping[str, Tensor]:
    """Weights of a file under timm's names, where timm can convert their own.

    OpenCLIP's (`visual.trunk.blocks.0…`, `visual.transformer.resblocks.0…`), DINOv2's, DINOv3's, BEiT's and others'.
    Text encoders and what only pretraining needs are left out. Positions of another image size are resampled as
    `fit_positions` does it.

    Args:
        state: As the file has them.
        tower: What they are for.
        config: Of the tower.

    Returns:
        The input itself if it has timm's names already, or none that timm can convert.
    """
    expected = tower.tower.state_dict()
    with torch.device("meta"):
        whole = create_timm_tower(config)
    if expected.keys() <= state.keys() and all(
        name in whole.state_dict() or name.startswith(BEYOND_THE_FEATURES) for name in state
    ):
        return state
    convert: Any = getattr(sys.modules[type(tower.tower).__module__], "checkpoint_filter_fn", None)
    size = expected["patch_embed.proj.weight"].shape[-2:]
    if convert is None or any(t.shape[-2:] != size for name, t in state.items() if name.endswith(_PATCHES)):
        return state
    scaled = any("gamma_" in name for name in state)
    options = {"antialias": False, "adapt_layer_scale": scaled}
    takes = inspect.signature(convert).parameters
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints which biases are missing
            converted = convert(dict(state), whole, **{name: value for name, value in options.items() if name in takes})
    except Exception:  # with names that it does not know it may do anything
        return state
    return converted if expected.keys() <= converted.keys() else state
