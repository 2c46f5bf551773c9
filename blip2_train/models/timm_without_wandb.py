"""Imports timm without wandb, which timm would load in two thirds of a second for a feature that nothing here uses.

While timm is imported, `sys.modules["wandb"]` is None, so that timm takes wandb for not installed. Tried with timm
1.0.31 and wandb 0.31.0. Every name of timm that this project uses is imported here.
"""

from __future__ import annotations

import sys

__all__ = [
    "Attention",
    "Beit",
    "Block",
    "Eva",
    "EvaAttention",
    "EvaBlock",
    "Mlp",
    "PatchEmbed",
    "VisionTransformer",
    "VisionTransformerRelPos",
    "get_pretrained_cfg",
    "resize_rel_pos_bias_table",
    "resolve_data_config",
    "timm",
]

_loaded = "wandb" in sys.modules
if not _loaded:
    sys.modules["wandb"] = None  # type: ignore[assignment]
try:
    import timm
    from timm.data import resolve_data_config
    from timm.layers import Attention, Mlp, PatchEmbed, resize_rel_pos_bias_table
    from timm.models import Beit, Eva, VisionTransformer, VisionTransformerRelPos, get_pretrained_cfg
    from timm.models.eva import EvaAttention, EvaBlock
    from timm.models.vision_transformer import Block
finally:
    if not _loaded:
        del sys.modules["wandb"]
