"""Weights of vision towers: by timm tag or from a file, in timm's names or those of their publisher."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.checkpoints.position_embeddings import fit_positions
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.hub import find_hub
from blip2_train.models.configs import VisionConfig
from blip2_train.models.timm_without_wandb import timm
from blip2_train.models.vision_tower import VisionTower, create_timm_tower
from blip2_train.system.error_reasons import reason_of

BEYOND_THE_FEATURES = ("norm.", "fc_norm.", "head.", "head_dist.", "head_drop.", "attn_pool.")
"""Prefixes of the parts behind the blocks of timm's models."""
_PATCHES = ("patch_embed.proj.weight", "visual.conv1.weight", "patch_embed.projection.weight")
_NOT_READ = tuple(f"{part}*" for part in BEYOND_THE_FEATURES)


def load_tower(tower: VisionTower, config: VisionConfig) -> LoadReport:
    """Load a tower's weights, of timm's tag or from a file; blocks and norms after the features are left unused.

    A file may have timm's names or those of its publisher; positions are resized.

    Raises:
        ConfigError: for `weights: timm` without a tag.
        CheckpointMismatch: if weights cannot be read or do not fit.
    """
    notes: tuple[str, ...] = ()
    if config.family is not None:
        if config.weights == "timm":
            raise ConfigError(f"vision weights of {config.family} are a file of its own names, or random; got timm")
        rule = LoadRule(what=f"vision weights {config.weights} of {config.family}")
        return load_by_rule(tower.tower, read_weights(config.weights), rule)
    if config.weights == "timm":
        if "." not in config.name:
            raise ConfigError(
                f"vision weights by timm need the full name with its tag, got {config.name!r}: timm's default tag may "
                "stand for other weights than the paper's; for instance vit_large_patch14_clip_quickgelu_224.openai"
            )
        state = _from_timm(config)
    else:
        held = read_weights(config.weights)
        state = to_timm_names(held, tower, config)
        notes = () if state is held else ("the names are another project's, converted by timm",)
    kept = tower.num_blocks
    later = {
        key
        for key in state
        if (m := re.match(r"blocks\.(\d+)\.", key)) and kept <= int(m[1]) < kept + config.dropped_blocks
    }
    used: dict[str, Tensor] = {key: tensor for key, tensor in state.items() if key not in later}
    used = fit_positions(used, tower, "")
    rule = LoadRule(what=f"vision weights {config.weights} of {config.name}", may_ignore=_NOT_READ)
    report = load_by_rule(tower.tower, used, rule)
    return replace(report, ignored=(*report.ignored, *sorted(later)), notes=notes)


def _from_timm(config: VisionConfig) -> Mapping[str, Tensor]:
    find_hub(config.name)
    try:
        model = timm.create_model(config.name, pretrained=True, num_classes=0, **(config.overrides or {}))
    except Exception as error:
        raise CheckpointMismatch(
            f"timm could not fetch {config.name!r} ({type(error).__name__}: {reason_of(error)}); "
            "check the tag and the network, or give a local file: model.vision.weights=<file>"
        ) from error
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def to_timm_names(state: Mapping[str, Tensor], tower: VisionTower, config: VisionConfig) -> Mapping[str, Tensor]:
    """Weights of a file under timm's names, where timm can convert their own.

    OpenCLIP's (`visual.trunk.blocks.0…`, `visual.transformer.resblocks.0…`), DINOv2's, DINOv3's, BEiT's and others'.
    Text encoders and what only pretraining needs are left out. Positions of another image size are resampled as
    `fit_positions` does it.

    Args:
        state: As the file has them.
        tower: The tower to load into.
        config: Configuration of the tower.

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
