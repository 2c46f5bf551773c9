"""The vision tower of a recipe in each process that computes features."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from blip2_train.checkpoints.frozen_parts import VISION_MODEL, load_tower
from blip2_train.checkpoints.initial_weights import RANDOM
from blip2_train.checkpoints.weight_sources import find_weights
from blip2_train.cli.model_workers import own_device
from blip2_train.errors import ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import VisionTower
from blip2_train.training.stored_features import tower_fingerprint


@dataclass(frozen=True)
class TowerSource:
    """Where a run takes its tower from."""

    vision: VisionConfig
    init_from: str | None
    """Weights that the run starts from."""
    device: str | None
    """None = a GPU if there is one; several processes divide the GPUs among themselves."""
    threads: int
    """Of a process that computes on a CPU."""

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Features `(B, P, Dv)` of images `(B, 3, H, W)`, on the CPU."""
        tower, device = _load(_Key(self))
        with torch.inference_mode():
            features: Tensor = tower(pixel_values.to(device))
        return features.cpu()


class _Key:
    """A source as a key of a cache; its configuration may hold a mapping."""

    def __init__(self, source: TowerSource) -> None:
        self.source = source

    def __hash__(self) -> int:
        return hash(repr(self.source))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and repr(other.source) == repr(self.source)


@dataclass(frozen=True, kw_only=True)
class TowerFacts:
    """What is known once a tower is loaded."""

    sha256: str
    patches: int
    width: int
    seconds: float
    """Of a crop, in one process."""


def tower_facts(source: TowerSource, batch_size: int) -> TowerFacts:
    """Load the tower, and measure it on one batch; on a CPU on one image.

    Raises:
        ConfigError: if its weights are random.
        CheckpointMismatch: if they cannot be read, or do not fit.
    """
    tower, device = _load(_Key(source))
    size, count = source.vision.image_size, batch_size if device.type == "cuda" else 1
    images = torch.zeros(count, 3, size, size)
    features = source(images)
    began = time.perf_counter()
    source(images)
    seconds = (time.perf_counter() - began) / count
    return TowerFacts(
        sha256=tower_fingerprint(tower), patches=features.shape[1], width=features.shape[2], seconds=seconds
    )


@lru_cache(maxsize=1)
def _load(key: _Key) -> tuple[VisionTower, torch.device]:
    """The tower with its weights, on the device of this process, unless it did so before."""
    source = key.source
    config = source.vision
    if not config.frozen:
        raise ConfigError("the recipe trains its vision tower, so its features change; features are of frozen towers")
    if source.init_from is not None and VISION_MODEL in find_weights(source.init_from).held:
        config = replace(config, weights=source.init_from)
    elif config.weights == RANDOM:
        raise ConfigError("the recipe's vision tower has random weights: features of it serve no other run")
    device = own_device(source.device)
    if device.type == "cpu":
        torch.set_num_threads(source.threads)
    tower = VisionTower(config)
    load_tower(tower, config)
    return tower.to(device), device
