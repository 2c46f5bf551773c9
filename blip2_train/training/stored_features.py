"""Trains from stored features: checks that they are the frozen tower's, which then gives up its weights."""

from __future__ import annotations

from typing import Any

from blip2_train.checkpoints.files import fingerprint
from blip2_train.data.features.store import StoredFeatures
from blip2_train.errors import ConfigError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import VisionTower


def tower_settings(config: VisionConfig, tower: VisionTower) -> dict[str, Any]:
    """What identifies a tower beside its weights and image size, as plain values."""
    return {
        "name": config.name.partition(".")[0],
        "dropped_blocks": config.dropped_blocks,
        "overrides": dict(config.overrides or {}),
        "family": config.family,
        "dtype": str(tower.dtype).removeprefix("torch."),
    }


def tower_fingerprint(tower: VisionTower) -> str:
    """SHA-256 of a tower's weights, which is that of the frozen weights of a stage-1 model with it."""
    return fingerprint({f"vision_model.{name}": tensor for name, tensor in tower.named_parameters()})


def check_tower_computes_as_stored(quantization: str | None, what: str, setting: str) -> None:
    """Refuse a tower in 8 bits where features are stored or read: features are of the tower as it is.

    Args:
        quantization: That of the tower; see `quantize_tower`.
        what: What stores or reads features, for messages.
        setting: The setting that quantises the tower, for messages.

    Raises:
        ConfigError: if it is in 8 bits.
    """
    if quantization not in (None, "none"):
        raise ConfigError(
            f"{what} does not go with {setting}={quantization}: stored features are those of the tower without it; "
            f"pass {setting}=none"
        )


def read_stored_features(model: Blip2Model, features: StoredFeatures) -> None:
    """Let a model read stored features instead of images; its tower gives up its weights.

    Raises:
        ConfigError: if the tower trains, or the features are those of another.
    """
    tower = model.vision_model
    if not tower.frozen:
        raise ConfigError(
            "data.features holds features of a frozen vision tower, but this one trains: leave data.features out, or "
            "set model.vision.frozen=true"
        )
    features.check_tower(tower_settings(model.vision_config, tower), tower_fingerprint(tower))
    tower.read_features()
