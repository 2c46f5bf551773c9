"""The parts of a model in the terms of transformers' BLIP-2 class, and which vision towers that class can hold."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Blip2VisionConfig

from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import QFormerConfig
from blip2_train.models.vision_tower import VisionTower

_KNOWN = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
_KNOWN_IN_BLOCKS = (
    "norm1.weight norm1.bias norm2.weight norm2.bias attn.qkv.weight attn.qkv.bias attn.q_bias attn.v_bias "
    "attn.proj.weight attn.proj.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
).split()
_REASONS = {
    "norm_pre": "it normalises before its first block",
    "reg_token": "it has register tokens",
    "gamma": "it scales the output of its layers",
    "norm.weight": "it has more norms than those of its blocks",
}


def describe_tower(tower: VisionTower) -> Blip2VisionConfig:
    """A tower in transformers' terms.

    Raises:
        CheckpointMismatch: with what it has that their class lacks, or lacks that their class has.
    """
    vit: Any = tower.tower
    block = vit.blocks[0]
    _refuse(_first_problem(vit, block))
    biased = getattr(block.attn.qkv, "bias", None) is not None or getattr(block.attn, "q_bias", None) is not None
    return Blip2VisionConfig(
        hidden_size=tower.width,
        intermediate_size=block.mlp.fc1.out_features,
        num_hidden_layers=tower.num_blocks,
        num_attention_heads=block.attn.num_heads,
        image_size=vit.patch_embed.img_size[0],
        patch_size=vit.patch_embed.patch_size[0],
        layer_norm_eps=block.norm1.eps,
        qkv_bias=biased,
    )


def describe_qformer(config: QFormerConfig, *, reads_text: bool) -> dict[str, Any]:
    """A Q-Former in transformers' terms: the arguments of their `Blip2QFormerConfig`."""
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "cross_attention_frequency": config.cross_attention_every,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
        "use_qformer_text_input": reads_text,
    }


def _first_problem(vit: Any, block: Any) -> str | None:
    names = {name for name, _ in vit.named_parameters()}
    if "cls_token" not in names:
        return "it has no class token"
    for name in sorted(names):
        if name not in _KNOWN and not (name.startswith("blocks.") and name.split(".", 2)[2] in _KNOWN_IN_BLOCKS):
            return next(
                (why for part, why in _REASONS.items() if part in name), f"their class has no weight like {name}"
            )
    if absent := [name for name in _KNOWN if name not in names]:
        return f"it has no {absent[0]}"
    if vit.pos_embed.shape[1] != vit.patch_embed.num_patches + 1:
        return "it has no position embedding for its class token"
    if not isinstance(block.mlp.act, nn.GELU) or block.mlp.act.approximate != "none":
        return f"it computes {type(block.mlp.act).__name__}, not the exact GELU"
    if getattr(vit, "rope", None) is not None:
        return "it rotates queries and keys by position"
    if getattr(block.attn, "head_dim", None) not in (None, vit.num_features // block.attn.num_heads):
        return "its heads are not a share of its width"
    return None


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise CheckpointMismatch(
            f"transformers' BLIP-2 cannot hold this vision tower: {problem}; choose another format"
        )
