"""timm without wandb, which it would load for a writer of tables that nothing here uses, in two thirds of a second."""

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
    sys.modules["wandb"] = None  # type: ignore[assignment]  # to timm it is not installed
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
