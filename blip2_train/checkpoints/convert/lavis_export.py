"""To a file in the layout of the original release, LAVIS."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from blip2_train.checkpoints.architecture import AnyModel
from blip2_train.checkpoints.convert.key_map import CLIP_TOWER, EVA_TOWER, lavis_names
from blip2_train.checkpoints.convert.lavis import NOTE, TIED
from blip2_train.checkpoints.export import Manifest
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import QFormerConfig
from blip2_train.models.generative import GenerativeModel


def write_lavis(file: Path, model: AnyModel, *, with_tower: bool, manifest: Manifest, config: str = "") -> Path:
    """Write the weights that LAVIS keeps in a checkpoint: all but the language model, and the tower if it was trained.

    Args:
        file: Where to.
        model: With all its weights.
        with_tower: Whether the tower is written; it must be one of LAVIS's then.
        manifest: What the weights are; its description is stored for reading the file back.
        config: Configuration of the run, as YAML text.

    Raises:
        CheckpointMismatch: if LAVIS has no such model.
    """
    tower = model.vision_model.tower
    state = model.state_dict()
    _refuse_other_qformer(model.qformer_config)
    clip = "vision_model.tower.norm_pre.weight" in state
    if with_tower and not clip and getattr(tower.blocks[0].attn, "q_bias", None) is None:
        raise CheckpointMismatch(
            f"LAVIS has no tower like {model.vision_config.name}: its two are EVA's ViT-g and CLIP's ViT-L; choose "
            "another format"
        )
    names = lavis_names(CLIP_TOWER if clip else EVA_TOWER, _family(model))
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
    torch.save({"model": theirs, NOTE: json.dumps(note)}, file)
    return file


def _refuse_other_qformer(config: QFormerConfig) -> None:
    """Refuse what no tensor tells and LAVIS has fixed: it would read the file and compute something else."""
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-12} | ({"num_heads": 12} if config.hidden_size == 768 else {})
    for name, theirs in fixed.items():
        if (ours := getattr(config, name)) != theirs:
            raise CheckpointMismatch(
                f"LAVIS's Q-Former has {name} {theirs}, that of this model {ours}; choose another format"
            )


def _family(model: AnyModel) -> str:
    if not isinstance(model, GenerativeModel):
        return ""
    if model.question_to_qformer:
        raise CheckpointMismatch(
            "LAVIS's BLIP-2 with a language model gives its Q-Former pictures only, but that of this model reads "
            "questions; share the export itself"
        )
    family = str(model.language_model.config.model_type)
    if family not in ("opt", "t5"):
        raise CheckpointMismatch(
            f"LAVIS has no BLIP-2 with a {family} language model, only OPT and T5; write another format"
        )
    return family


def _portable(manifest: Manifest) -> Manifest:
    """Without the language model's sizes, which its own folder tells, but with its activation, which that may not."""
    language = manifest.architecture.get("language")
    if language is None:
        return manifest
    activation = {key: value for key, value in (language["architecture"] or {}).items() if key == "dense_act_fn"}
    language = {**language, "architecture": None, "overrides": {**language["overrides"], **activation}}
    return replace(manifest, architecture={**manifest.architecture, "language": language})
