"""A run that is shorter than its recipe's keeps the recipe's shape: what hangs on the steps is scaled with them.

Only where the recipe's own numbers would not fit into the steps of the command line, and only what the command line
leaves to the recipe; numbers of recipes are absolute (a warm-up of 2,000 steps), and stay so wherever they fit.
Validations and checkpoints are spread evenly, so that none comes just before that of the last step.
"""

from __future__ import annotations

import logging
import math

from omegaconf import DictConfig, OmegaConf

WARM_UP = "optim.warmup_steps"
FOLLOWING = ("validate_every", WARM_UP, "checkpoint_every")
"""Keys that count optimiser steps of the run."""
MOST = 10
"""Validations, and checkpoints, of a run that is scaled: each costs what it costs, however short the run is."""
CLOSEST = 5
"""Steps between two of them; a run of fewer has one of each, at its end."""
log = logging.getLogger(__name__)


def scale_step_counts(config: DictConfig, recipe: DictConfig, given: frozenset[str]) -> None:
    """Scale what hangs on the steps of a run, if the command line set only these and the recipe's numbers do not fit.

    Args:
        config: With what the command line set; changed in place.
        recipe: The same before.
        given: Full paths of the keys that the command line set.
    """
    steps, former = (_number(node, "steps") for node in (config, recipe))
    if "steps" not in given or steps is None or former is None or not 0 < steps < former:
        return
    own = {key: _number(config, key) for key in FOLLOWING if key not in given and not {"optim"} & given}
    numbers = {key: number for key, number in own.items() if number is not None}
    if all(number <= steps for number in numbers.values()):
        return
    changes = []
    for key, number in numbers.items():
        scaled = round(number * steps / former)
        if key != WARM_UP:
            scaled = _evenly(steps, scaled)
        if scaled < number:
            OmegaConf.update(config, key, scaled)
            changes.append(f"{key}={scaled} ({number})")
    log.info("steps=%d of the recipe's %d: %s follow", steps, former, ", ".join(changes))


def _evenly(steps: int, every: int) -> int:
    """About `every`, so that the last of the intervals that `steps` are cut into is about as long as the others."""
    times = min(round(steps / max(every, 1)), MOST, steps // CLOSEST)
    return math.ceil(steps / max(times, 1))


def _number(config: DictConfig, key: str) -> int | None:
    """A whole number of a configuration; None if it is none, or missing."""
    value = OmegaConf.select(config, key, throw_on_missing=False)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
