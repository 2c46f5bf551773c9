"""The parts of a model in the terms of transformers' BLIP-2 class, and which vision towers that class can hold."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Blip2VisionConfig

from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import QFormerConfig
from blip2_train.models.timm_without_wandb import Attention, Block, EvaAttention, EvaBlock, Mlp
from blip2_train.models.vision_tower import VisionTower

_KNOWN = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
_KNOWN_IN_BLOCKS = (
    "norm1.weight norm1.bias norm2.weight norm2.bias attn.qkv.weight attn.qkv.bias attn.q_bias attn.v_bias "
    "attn.proj.weight attn.proj.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
).split()
_REASONS = {
    "norm_pre": "it normalises before its first block",
    "reg_token": "it has register tokens",
    "dist_token": "it has a distillation token",
    "gamma": "it scales the output of its layers",
    "relative_position": "its attention has relative positions",
    "q_proj": "it has queries, keys and values apart",
    "attn.norm": "it normalises the output of its attention",
    "q_norm": "it normalises queries and keys",
    "norm.": "it has more norms than those of its blocks",
}
MOST = 4
"""Reasons that a message gives."""


def describe_tower(tower: VisionTower) -> Blip2VisionConfig:
    """A tower in transformers' terms.

    Raises:
        CheckpointMismatch: with what it has that their class lacks, or lacks that their class has.
    """
    if tower.family is not None:
        _refuse([f"it is of the family {tower.family}"])
    vit: Any = tower.tower
    block = vit.blocks[0]
    _refuse(_problems(vit, block))
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


def _problems(vit: Any, block: Any) -> list[str]:
    """Everything that their class cannot hold, each once: first what the tower computes, then its weights."""
    weights = dict(vit.named_parameters())
    problems = [] if "cls_token" in weights else ["it has no class token"]
    if vit.num_prefix_tokens > 1 and "reg_token" not in weights:
        problems.append(f"it has {vit.num_prefix_tokens} prefix tokens")
    if getattr(vit, "rope", None) is not None:
        problems.append("it rotates queries and keys by position")
    problems += _problems_of_block(vit, block)
    strange = [
        name
        for name in sorted(weights)
        if name not in _KNOWN and not (name.startswith("blocks.") and name.split(".", 2)[2] in _KNOWN_IN_BLOCKS)
    ]
    problems += [why for name in strange for part, why in _REASONS.items() if part in name]
    if strange and not problems:
        problems.append(f"it has a weight {strange[0]}")
    problems += [f"it has no {name}" for name in _KNOWN[1:] if name not in weights]
    if "pos_embed" in weights and "cls_token" in weights and vit.pos_embed.shape[1] != vit.patch_embed.num_patches + 1:
        problems.append("it has no position embedding for its class token alone")
    return list(dict.fromkeys(problems))


def _problems_of_block(vit: Any, block: Any) -> list[str]:
    if not isinstance(block, Block | EvaBlock):
        return [f"its blocks are timm's {type(block).__module__.rpartition('.')[2]}.{type(block).__name__}"]
    problems = []
    if not isinstance(block.attn, Attention | EvaAttention):
        problems.append(f"its attention is timm's {type(block.attn).__name__}")
    elif block.attn.head_dim != vit.num_features // block.attn.num_heads:
        problems.append("its heads are not a share of its width")
    if not isinstance(block.mlp, Mlp):
        problems.append(f"its feed-forward layers are gated ({type(block.mlp).__name__})")
    elif not isinstance(block.mlp.act, nn.GELU) or block.mlp.act.approximate != "none":
        problems.append(f"it computes {type(block.mlp.act).__name__}, not the exact GELU")
    if not isinstance(block.norm1, nn.LayerNorm):
        problems.append(f"its norms are {type(block.norm1).__name__}")
    return problems


def _refuse(problems: list[str]) -> None:
    if problems:
        raise CheckpointMismatch(
            f"transformers' BLIP-2 cannot hold this vision tower: {'; '.join(problems[:MOST])}; choose another format"
        )
