"""Stores the features of the images of a recipe, or of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL
import torch
from omegaconf import DictConfig

from blip2_train.cli.features.estimate import announce
from blip2_train.cli.features.tower import TowerFacts, TowerSource, tower_facts
from blip2_train.cli.model_workers import ModelWorkers
from blip2_train.cli.phase_progress import PhaseProgress
from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.config.starting_weights import find_starting_weights
from blip2_train.data.batches.transforms import EvalTransform, TrainTransform
from blip2_train.data.features.image_files import ImageFiles
from blip2_train.data.features.image_keys import EVALUATION
from blip2_train.data.features.preparation import FeaturePreparation
from blip2_train.data.features.samples import ImageSet, Samples
from blip2_train.data.features.settings import FeatureSettings
from blip2_train.data.features.writing import CropRule
from blip2_train.data.prepare.engine import cores, paths_here
from blip2_train.data.prepare.preparation import REJECTED, UNFINISHED
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.data.storage.remote import is_remote
from blip2_train.errors import ConfigError
from blip2_train.evaluation.task import EvaluationTask
from blip2_train.system.screen import echo
from blip2_train.training.earlier_runs import find_source
from blip2_train.training.stored_features import check_tower_computes_as_stored

Rule = Callable[[TowerFacts], tuple[CropRule, dict[str, Any]]]
"""Gives, for a tower, the rule of the crops and the settings that they depend on."""


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
        return min(super().models_at_once, torch.cuda.device_count() or 1)

    @property
    def processes(self) -> int:
        """Processes of this machine that compute features."""
        return self.workers or self.models_at_once


def store_features(config: DictConfig, request: Request) -> None:
    """Store the features of what a recipe trains on and validates with, and print what was stored.

    Args:
        config: From `compose`.
        request: What is stored, and where.

    Raises:
        ConfigError: if a setting cannot be used, the tower trains, is random or in 8 bits, or the disk is too small.
        ShardError: if the data cannot be read, or the output not be written.
    """
    quantization = config.trainer.get("vision_quantization")
    check_tower_computes_as_stored(quantization, "features.py", "trainer.vision_quantization")
    data = make_data(config, features=None, access="random", num_workers=0, rejected_list=None)
    init_from, _ = find_starting_weights(config)
    data.prepare_data()
    data.setup()
    sets = [one for one in data.image_sets() if request.crops or one.flags == EVALUATION]
    named = [path for part in config.data.sources for path in paths_here(part.path, part.get("images"))]
    tower = TowerSource(
        vision=instantiate(config.model.vision),
        init_from=init_from,
        device=request.worker_device,
        threads=max(1, cores() // request.processes),
    )
    _store(
        request, tower, sets, named, lambda _: data.crop_rule(request.crops), config.steps * config.global_batch_size
    )


def store_evaluated(config: DictConfig, request: Request) -> None:
    """Store the features of what tasks evaluate, of the checkpoint's tower, and print what was stored.

    Args:
        config: From `compose_evaluation`.
        request: What is stored, and where; `crops` is not used.

    Raises:
        ConfigError: if no checkpoint or several are named, the tower is in 8 bits, or the disk is too small.
        ShardError: if no image can be read, or the output not be written.
    """
    check_tower_computes_as_stored(config.vision_quantization, "features.py", "vision_quantization")
    if config.checkpoint is None or any(config.checkpoints.values()):
        raise ConfigError("features are of one tower: give checkpoint=<a model with it>, and no checkpoints.<kind>=")
    tasks: list[EvaluationTask] = [instantiate(node) for node in config.tasks.values()]
    sets = []
    for task in tasks:
        paths = dict.fromkeys(path for batch in range(len(task)) for path in task.paths(batch))
        sets.append(ImageSet.whole(ImageFiles(list(paths), task.name), EVALUATION))
    options = ("dtype", "language_model", "vision_weights", "tokenizer")
    tower = TowerSource(
        trained=find_source(str(config.checkpoint), config.paths.output_dir, "checkpoint"),
        options=tuple((name, config[name]) for name in options),
        device=request.worker_device,
        threads=max(1, cores() // request.processes),
    )
    _store(request, tower, sets, [], _evaluation_rule, None)


def _evaluation_rule(facts: TowerFacts) -> tuple[CropRule, dict[str, Any]]:
    sizes = facts.processing
    transforms = (kind(sizes["image_size"], sizes["mean"], sizes["std"]) for kind in (TrainTransform, EvalTransform))
    train, evaluation = transforms
    assert isinstance(train, TrainTransform)
    return CropRule(train=train, evaluation=evaluation, crops=0, seed=0), dict(sizes)


def _store(
    request: Request, tower: TowerSource, sets: Sequence[ImageSet], named: Sequence[str], rule: Rule, drawn: int | None
) -> None:
    """Store the features of sets of images.

    Args:
        request: What is stored, and where.
        tower: Whose features.
        sets: Of which images.
        named: Files and folders of the images.
        rule: How crops are made.
        drawn: Samples of the whole run; None = of evaluations.
    """
    folder, samples = Path(request.output).expanduser(), Samples(sets)
    if not len(samples):
        raise ConfigError("with crops=0 nothing is left to store, as the recipe validates on no images")
    kept_when_stopped(f"what is done so far is kept in {folder}, and the same command goes on from there")
    weights = [path for path in tower.files if Path(path).exists()]
    with (
        request.engines([*named, *weights, str(folder / UNFINISHED)]) as (engine, writer),
        PhaseProgress() as shown,
    ):
        (facts,) = writer(partial(tower_facts, batch_size=request.batch_size), [tower])
        crop_rule, transform = rule(facts)
        settings = FeatureSettings(
            tower=facts.settings,
            tower_sha256=facts.sha256,
            transform=transform,
            crops=crop_rule.crops,
            bits=request.bits,
            seed=crop_rule.seed,
            patches=facts.patches,
            width=facts.width,
            images_per_shard=request.images_per_shard,
            pillow=PIL.__version__,
            sources=samples.fingerprints(),
        )
        preparation = FeaturePreparation(
            samples=samples,
            folder=folder,
            settings=settings,
            rule=crop_rule,
            encode=tower,
            batch_size=request.batch_size,
            threads=max(1, min(16, cores() // request.processes)),
        )
        known = request.processes if request.engine == "local" else None
        say = partial(announce, preparation.layout, folder, facts.seconds, known, drawn)
        index = preparation.run(engine, writer, shown, say)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in index["rejected"].items()) or "none"
    echo(f"features:  {index['crops']:,} crops of {index['images']:,} images in {folder}, {index['bytes']:,} bytes")
    echo(f"rejected:  {listed}; see {folder / REJECTED}")
    use = f"evaluate with features={folder}" if drawn is None else f"train with data.features={folder}"
    echo(f"index:     {folder / INDEX}; {use}")
