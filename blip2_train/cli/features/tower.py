"""The vision tower of a recipe, or of a trained model, in each process that computes features."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from blip2_train.checkpoints.frozen_parts import VISION_MODEL, load_tower
from blip2_train.checkpoints.initial_weights import RANDOM
from blip2_train.checkpoints.weight_sources import find_weights
from blip2_train.cli.model_workers import own_device
from blip2_train.data.batches.processor import Processor
from blip2_train.errors import ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import VisionTower
from blip2_train.pretrained import load_pretrained
from blip2_train.training.stored_features import tower_fingerprint, tower_settings


@dataclass(frozen=True, kw_only=True)
class TowerSource:
    """Where a tower comes from: a recipe's configuration, or a trained model."""

    vision: VisionConfig | None = None
    """Of a recipe; None = the tower of `trained`."""
    init_from: str | None = None
    """Weights that the recipe starts from."""
    trained: str | None = None
    """Anything that `load_pretrained` takes."""
    options: tuple[tuple[str, str | None], ...] = ()
    """Of `load_pretrained`."""
    device: str | None
    """None = a GPU if there is one; several processes divide the GPUs among themselves."""
    threads: int
    """Of a process that computes on a CPU."""

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Features `(B, P, Dv)` of images `(B, 3, H, W)`, on the CPU."""
        loaded = _load(_Key(self))
        with torch.inference_mode():
            features: Tensor = loaded.tower(pixel_values.to(loaded.device))
        return features.cpu()

    @property
    def files(self) -> list[str]:
        """What of it may be a file or folder."""
        weights = None if self.vision is None else self.vision.weights
        return [name for name in (self.init_from, self.trained, weights, *dict(self.options).values()) if name]


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

    settings: dict[str, Any]
    """See `tower_settings`."""
    sha256: str
    patches: int
    width: int
    processing: dict[str, Any]
    """`image_size`, and for a trained model `mean` and `std`."""
    seconds: float
    """Of a crop, in one process."""


def tower_facts(source: TowerSource, batch_size: int) -> TowerFacts:
    """Load the tower, and measure it on one batch; on a CPU on one image.

    Raises:
        ConfigError: if its weights are random, or it trains.
        CheckpointMismatch: if they cannot be read, or do not fit.
    """
    loaded = _load(_Key(source))
    size, count = loaded.config.image_size, batch_size if loaded.device.type == "cuda" else 1
    images = torch.zeros(count, 3, size, size)
    features = source(images)
    began = time.perf_counter()
    source(images)
    seconds = (time.perf_counter() - began) / count
    processor = loaded.processor
    normal = {} if processor is None else {"mean": list(processor.mean), "std": list(processor.std)}
    return TowerFacts(
        settings=tower_settings(loaded.config, loaded.tower),
        sha256=tower_fingerprint(loaded.tower),
        patches=features.shape[1],
        width=features.shape[2],
        processing={"image_size": size, **normal},
        seconds=seconds,
    )


@dataclass(frozen=True)
class _Loaded:
    tower: VisionTower
    config: VisionConfig
    device: torch.device
    processor: Processor | None


@lru_cache(maxsize=1)
def _load(key: _Key) -> _Loaded:
    """The tower with its weights, on the device of this process, unless it did so before."""
    source, config = key.source, key.source.vision
    device = own_device(source.device)
    if device.type == "cpu":
        torch.set_num_threads(source.threads)
    if config is None:
        assert source.trained is not None
        options: dict[str, Any] = dict(source.options)
        model, processor = load_pretrained(source.trained, device="cpu", **options)
        tower = model.network.vision_model  # the rest is dropped
        return _Loaded(tower.to(device).eval(), model.network.vision_config, device, processor)
    if not config.frozen:
        raise ConfigError("the recipe trains its vision tower, so its features change; features are of frozen towers")
    if source.init_from is not None and VISION_MODEL in find_weights(source.init_from).held:
        config = replace(config, weights=source.init_from)
    elif config.weights == RANDOM:
        raise ConfigError("the recipe's vision tower has random weights: features of it serve no other run")
    tower = VisionTower(config)
    load_tower(tower, config)
    return _Loaded(tower.to(device), config, device, None)
