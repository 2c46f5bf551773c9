"""Mean and standard deviation of a run's pixel values: the tower's, unless `data.mean` and `data.std` say others."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from blip2_train.config.strict_keys import arguments_of, described_target
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.configs import VisionConfig

_NAMES = ("mean", "std")
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
KNOWN = {"eva_giant_patch14_clip_224.laion400m": _CLIP, "vit_large_patch14_clip_quickgelu_224.openai": _CLIP}
"""What timm says of the towers of the paper, which a configuration can be printed with before timm is loaded."""


def brought_by_weights(weights: Any) -> dict[str, list[float]]:
    """Mean and std that the weights of a tower bring themselves; empty if they say nothing of them.

    Args:
        weights: `model.vision.weights`: a local file or folder of timm's, or a whole model in any format that is known.

    Raises:
        ConfigError: if what lies beside a file cannot be read.
    """
    if not isinstance(weights, str) or weights in ("timm", "random"):
        return {}
    from blip2_train.checkpoints.weight_sources import describe_source, is_source
    from blip2_train.models.vision_tower import beside_weights

    normal: dict[str, Any] = beside_weights(weights) or {}
    try:
        if not normal and is_source(weights):
            normal = describe_source(weights).processor
    except CheckpointMismatch:
        return {}  # loading them reports it
    return {name: list(map(float, normal[name])) for name in _NAMES if normal.get(name) is not None}


def fill_in_normalisation(config: DictConfig) -> None:
    """Write the numbers that a run uses into `data` and `model.vision`, the same into both.

    What is not known yet, because timm has no tower of that name, stays null: who needs it raises an error.
    """
    vision, data = OmegaConf.select(config, "model.vision"), OmegaConf.select(config, "data")
    about = _vision_config(vision, data)
    if about is None:
        return
    try:
        normal = dict(zip(_NAMES, _normalisation(about), strict=True))
    except ConfigError:
        return
    for node in (data, vision):
        for name in _NAMES:
            if _takes(node, name):
                with open_dict(node):
                    node[name] = list(normal[name])


def require_normalisation(config: DictConfig) -> None:
    """Say why mean and standard deviation are not known, if they are not.

    Raises:
        ConfigError: if timm does not know the tower.
    """
    vision, data = config.model.vision, config.data
    if (about := _vision_config(vision, data)) is not None:
        _normalisation(about)


def _normalisation(about: VisionConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As `vision_tower.normalisation`, which loads timm and so is not called where its answer is known."""
    if about.mean is not None and about.std is not None:
        return about.mean, about.std
    if about.name in KNOWN and about.family is None and about.weights in ("timm", "random"):
        mean, std = KNOWN[about.name]
        return about.mean or mean, about.std or std
    from blip2_train.models.vision_tower import normalisation

    return normalisation(about)


def _vision_config(vision: Any, data: Any) -> VisionConfig | None:
    """What of the tower fixes its normalisation; None if there is no tower, or its values are of wrong types."""
    if not OmegaConf.is_dict(vision) or not isinstance(vision.get("name"), str):
        return None
    stated: dict[str, Any] = {}
    for name in _NAMES:
        chosen = data.get(name) if OmegaConf.is_dict(data) else None
        chosen = vision.get(name) if chosen is None else chosen
        stated[name] = OmegaConf.to_container(chosen) if OmegaConf.is_config(chosen) else chosen
    if stated["mean"] is None or stated["std"] is None:
        stated = brought_by_weights(vision.get("weights")) | {name: n for name, n in stated.items() if n is not None}
    try:
        return VisionConfig(name=vision.name, weights=str(vision.get("weights")), image_size=1, **stated)
    except (ConfigError, TypeError, ValueError):
        return None


def _takes(node: Any, name: str) -> bool:
    if not OmegaConf.is_dict(node) or "_target_" not in node:
        return False
    return name in node or name in arguments_of(described_target("", node._target_)).annotations
