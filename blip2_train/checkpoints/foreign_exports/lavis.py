"""Writes a file in the layout of the original release, LAVIS."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blip2_train.checkpoints.convert.key_map import CLIP_TOWER, EVA_TOWER, Rule, lavis_names
from blip2_train.checkpoints.convert.lavis import NOTE, TIED
from blip2_train.checkpoints.export import Manifest
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import QFormerConfig

_BLOCK = "norm1.weight norm1.bias norm2.weight norm2.bias attn.qkv.weight attn.proj.weight attn.proj.bias "
_BLOCK += "mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
_EVA = {
    *("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "attn.q_bias", "attn.v_bias"),
    *_BLOCK.split(),
}
_CLIP = {
    *("cls_token", "pos_embed", "patch_embed.proj.weight", "norm_pre.weight", "norm_pre.bias", "attn.qkv.bias"),
    *_BLOCK.split(),
}


def write_lavis(file: Path, model: Blip2Model, *, with_tower: bool, manifest: Manifest, config: str = "") -> Path:
    """Write the weights that LAVIS keeps in a checkpoint: all but the language model, and the tower if it was trained.

    Args:
        file: Output file.
        model: With all its weights.
        with_tower: Whether the tower is written; also one that is not must be of the kind of LAVIS's two.
        manifest: Manifest of the weights; its description is stored for reading the file back.
        config: Configuration of the run, as YAML text.

    Raises:
        CheckpointMismatch: if LAVIS has no such model, or prepares images otherwise.
    """
    state = model.state_dict()
    _refuse_other_qformer(model.qformer_config)
    family, tower_names = _family(model), _tower_names(model)
    _refuse_other_normalisation(manifest)
    names = lavis_names(tower_names, family)
    theirs = {}
    for name, tensor in state.items():
        if name.startswith("language_model.") or (name.startswith("vision_model.") and not with_tower):
            continue
        key = names.to_theirs(name)
        if key is None:
            raise CheckpointMismatch(
                f"LAVIS has no weight like {name} of {model.vision_config.name}; write another format"
            )
        theirs[key] = tensor.detach().contiguous()
    for name in ("class_embedding", "positional_embedding"):
        if f"visual_encoder.{name}" in theirs:
            theirs[f"visual_encoder.{name}"] = theirs[f"visual_encoder.{name}"].squeeze(0).squeeze(0)
    for second, first in TIED.items():
        if first in theirs:
            theirs[second] = theirs[first]
    note = {"manifest": asdict(_portable(manifest)), "config": config}
    with file.open("wb") as opened:  # given a path, torch reports a full disk in 30 lines
        torch.save({"model": theirs, NOTE: json.dumps(note)}, opened)
    return file


def _tower_names(model: Blip2Model) -> tuple[Rule, ...]:
    """Names of the tower's weights: LAVIS has EVA's ViT-g and CLIP's ViT-L, here of any size."""
    tower: Any = model.vision_model.tower
    block = None if model.vision_model.family else tower.blocks[0]
    names = {re.sub(r"^blocks\.\d+\.", "", name) for name, _ in tower.named_parameters()}
    if block is not None and names == _EVA and isinstance(block.mlp.act, nn.GELU):
        return EVA_TOWER
    if block is not None and names == _CLIP and type(block.mlp.act).__name__ == "QuickGELU":
        return CLIP_TOWER
    raise CheckpointMismatch(
        f"LAVIS has no tower like {model.vision_config.name}: its two are EVA's ViT-g and CLIP's ViT-L; choose another "
        "format"
    )


def _refuse_other_normalisation(manifest: Manifest) -> None:
    """Refuse images that are prepared otherwise than LAVIS does, which has fixed it."""
    for name, theirs in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
        if (ours := manifest.processor.get(name)) is not None and tuple(ours) != theirs:
            raise CheckpointMismatch(
                f"LAVIS prepares images with CLIP's {name}, this model reads {list(ours)}; choose another format"
            )


def _refuse_other_qformer(config: QFormerConfig) -> None:
    """Refuse what no tensor shows and LAVIS has fixed: it would read the file and compute something else."""
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-12} | ({"num_heads": 12} if config.hidden_size == 768 else {})
    for name, theirs in fixed.items():
        if (ours := getattr(config, name)) != theirs:
            raise CheckpointMismatch(
                f"LAVIS's Q-Former has {name} {theirs}, that of this model {ours}; choose another format"
            )


def _family(model: Blip2Model) -> str:
    if model.text_config is None:
        return ""
    if model.question_to_qformer:
        raise CheckpointMismatch(
            "LAVIS's BLIP-2 with a language model gives its Q-Former images only, but that of this model reads "
            "questions; share the export itself"
        )
    family = str(model.text_config.model_type)
    if family not in ("opt", "t5"):
        raise CheckpointMismatch(
            f"LAVIS has no BLIP-2 with a {family} language model, only OPT and T5; write another format"
        )
    return family


def _portable(manifest: Manifest) -> Manifest:
    """Without the language model's sizes, which its own folder states, but with its activation, which that may not."""
    language = manifest.architecture.get("language")
    if language is None:
        return manifest
    activation = {key: value for key, value in (language["architecture"] or {}).items() if key == "dense_act_fn"}
    language = {**language, "architecture": None, "overrides": {**language["overrides"], **activation}}
    return replace(manifest, architecture={**manifest.architecture, "language": language})
