"""Stores the features of a recipe's images, and says before what that takes and what it saves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL
from omegaconf import DictConfig

from blip2_train.cli.features.estimate import announce
from blip2_train.cli.features.tower import TowerFacts, TowerSource, tower_facts
from blip2_train.cli.model_workers import ModelWorkers
from blip2_train.cli.preparation_progress import PreparationProgress
from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.config.starting_weights import find_starting_weights
from blip2_train.data.features.image_keys import EVALUATION
from blip2_train.data.features.preparation import FeaturePreparation
from blip2_train.data.features.samples import Samples
from blip2_train.data.features.settings import FeatureSettings
from blip2_train.data.features.writing import CropRule
from blip2_train.data.prepare.engine import cores, paths_here
from blip2_train.data.prepare.preparation import REJECTED, UNFINISHED
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.data.storage.remote import is_remote
from blip2_train.errors import ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.system.screen import echo
from blip2_train.training.stored_features import tower_settings


@dataclass(frozen=True, kw_only=True)
class Request(ModelWorkers):
    """What is stored of each image, and where."""

    output: str = ""
    crops: int = 1
    bits: int = 16
    images_per_shard: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output:
            raise ConfigError("output= is missing; give the folder of the features")
        if is_remote(self.output):
            raise ConfigError(f"output={self.output}: features are read at random from local disks; give a folder")
        if self.crops < 0 or self.images_per_shard < 1:
            raise ConfigError(
                f"crops must be 0 or more and images_per_shard at least 1, got {self.crops} and {self.images_per_shard}"
            )

    @property
    def models_at_once(self) -> int:
        """One for each GPU; without GPU one, which uses all cores, as the tower may take gigabytes."""
        return min(super().models_at_once, _gpus() or 1)


def store_features(config: DictConfig, request: Request) -> None:
    """Store the features of a recipe's images, and print what was stored.

    Args:
        config: From `compose`.
        request: What is stored, and where.

    Raises:
        ConfigError: if a setting cannot be used, the tower trains or is random, or the disk is too small.
        ShardError: if the data cannot be read, or the output not be written.
    """
    folder = Path(request.output).expanduser()
    vision: VisionConfig = instantiate(config.model.vision)
    data = make_data(config, features=None, access="random", num_workers=0, rejected_list=None)
    init_from, _ = find_starting_weights(config)
    data.prepare_data()
    data.setup()
    samples = Samples([one for one in data.image_sets() if request.crops or one.flags == EVALUATION])
    if not len(samples):
        raise ConfigError("with crops=0 nothing is left to store, as the recipe validates on no images")
    kept_when_stopped(f"what is done so far is kept in {folder}, and the same command goes on from there")
    processes = request.workers or request.models_at_once
    tower = TowerSource(vision, init_from, request.worker_device, threads=max(1, cores() // processes))
    named = [path for part in config.data.sources for path in paths_here(part.path, part.get("images"))]
    weights = [path for path in (init_from, vision.weights) if path is not None and Path(path).exists()]
    rule, transform = data.crop_rule(request.crops)
    shared = [*named, *weights, str(folder / UNFINISHED)]
    with request.engines(shared) as (engine, writer), PreparationProgress() as shown:
        (facts,) = writer(partial(tower_facts, batch_size=request.batch_size), [tower])
        preparation = FeaturePreparation(
            samples=samples,
            folder=folder,
            settings=_settings(request, vision, facts, transform, rule, samples),
            rule=rule,
            encode=tower,
            batch_size=request.batch_size,
            threads=max(1, min(16, cores() // processes)),
        )
        drawn, known = config.steps * config.global_batch_size, processes if request.engine == "local" else None
        index = preparation.run(
            engine, writer, shown, partial(announce, preparation.layout, folder, facts, known, drawn)
        )
    listed = ", ".join(f"{count:,} {reason}" for reason, count in index["rejected"].items()) or "none"
    echo(f"features:  {index['crops']:,} crops of {index['images']:,} images in {folder}, {index['bytes']:,} bytes")
    echo(f"rejected:  {listed}; see {folder / REJECTED}")
    echo(f"index:     {folder / INDEX}; train with data.features={folder}")


def _settings(
    request: Request,
    vision: VisionConfig,
    facts: TowerFacts,
    transform: dict[str, Any],
    rule: CropRule,
    samples: Samples,
) -> FeatureSettings:
    return FeatureSettings(
        tower=tower_settings(vision),
        tower_sha256=facts.sha256,
        transform=transform,
        crops=request.crops,
        bits=request.bits,
        seed=rule.seed,
        patches=facts.patches,
        width=facts.width,
        images_per_shard=request.images_per_shard,
        pillow=PIL.__version__,
        sources=samples.fingerprints(),
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
