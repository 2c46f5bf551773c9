"""`epochs=3` in the place of `steps`: as many optimiser steps as so many passes over the data of a run take.

One epoch is one sample of a batch for each usable sample of all sources together, without those held out: an image
with one of its captions, or a question. In a mixture with weights of its own some sources are then read more often
than once, and others less; the plan of the run lists how often.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from blip2_train.config.value_types import misfit
from blip2_train.errors import ConfigError

UNKNOWN = 2**31
"""Steps until they are counted: no number of a recipe is larger."""
log = logging.getLogger(__name__)


def has_epochs(config: DictConfig, given: frozenset[str]) -> bool:
    """Whether the length of a run is given in epochs; then its steps are `UNKNOWN` until `put_steps`.

    `steps` of the command line count before `epochs` of a recipe, which count before its `steps`.

    Args:
        config: With what the command line set; changed in place.
        given: Full paths of the keys that the command line set.

    Raises:
        ConfigError: if the command line gives both.
    """
    if config.get("epochs") is None:
        return False
    steps = OmegaConf.select(config, "steps", throw_on_missing=False)
    if "steps" in given and steps is not None:
        if "epochs" in given:
            raise ConfigError(f"epochs={config.epochs} and steps={steps}: give one of them, the other follows")
        config.epochs = None
        return False
    config.steps = UNKNOWN
    return True


def put_steps(config: DictConfig, build: Callable[[Any], Any]) -> None:
    """Set `steps` to what `epochs` takes; data that are made from a seed are made first, as a run makes them.

    Numbers that cannot be used are left to the check of values.

    Args:
        config: With interpolations; changed in place.
        build: Builds what a node describes.

    Raises:
        ConfigError: if the data have no sample count that is known before they are read.
        ShardError: if the data cannot be opened.
    """
    epochs, batch = config.epochs, OmegaConf.select(config, "global_batch_size", throw_on_missing=False)
    if misfit(epochs, float) or misfit(batch, int) or not 0 < epochs < UNKNOWN or batch < 1:
        return
    samples = training_samples(config.data, build)
    config.steps = steps_of(epochs, samples, batch)
    log.info(
        "epochs=%g: %g x %s samples / %s a step = %s steps", epochs, epochs, *_grouped(samples, batch, config.steps)
    )


def steps_of(epochs: float, samples: int, batch: int) -> int:
    """Optimiser steps that draw every one of `samples` at least `epochs` times; the last batch is a whole one.

    Example:
        >>> steps_of(3, 1000, 64), steps_of(0.5, 128, 64), steps_of(0.001, 128, 64)
        (47, 1, 1)
    """
    return math.ceil(round(epochs * samples, 6) / batch)


def training_samples(data: DictConfig, build: Callable[[Any], Any]) -> int:
    """Usable samples of all sources of a data module's node, without those held out.

    Raises:
        ConfigError: if they are not known before they are read.
        ShardError: if a source cannot be opened.
    """
    from blip2_train.data.sources.config import HELD_OUT  # here, as few commands read data
    from blip2_train.data.sources.holdout import open_training_sources

    if OmegaConf.select(data, "sources") is None:
        raise ConfigError(f"epochs: {data.get('_target_')} has no data.sources to be counted; give steps instead")
    if data.get("access") == "sequential":
        raise ConfigError(
            "epochs: with data.access=sequential the number of samples is not known before they are read; give steps, "
            "or leave data.access out"
        )
    if data.get("prepare") is not None:
        build(data.prepare)()
    held_out = 0 if data.get("validation") is not None else data.get("holdout", HELD_OUT)
    return sum(len(part) for part in open_training_sources([build(node) for node in data.sources], held_out))


def _grouped(*numbers: int) -> list[str]:
    return [f"{number:,}" for number in numbers]
