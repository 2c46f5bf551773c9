"""The moments at which a run is killed, drawn before it starts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from blip2_train.errors import ConfigError

LONGEST_START = 8.0
"""Seconds after a launch within which a kill during start-up falls."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When to kill."""

    kind: Literal["anywhere", "checkpoint", "epoch", "start"]
    """`anywhere`: in the step after `step`. `checkpoint`: while the checkpoint of `step` is written. `epoch`: in the
    step after `step`, in which an epoch ended. `start`: `wait` seconds after the launch."""
    step: int
    wait: float
    """Share of a step, 0 … 1, after which the kill falls in the following step; for `start`, seconds."""


def draw_moments(kills: int, seed: int, steps: int, every: int, epoch_ends: Sequence[int]) -> list[Moment]:
    """Moments in order of their steps: a quarter in the writing of a checkpoint, a fifth where an epoch ends, a tenth
    while the run starts, the others anywhere.

    Args:
        kills: How many.
        seed: Decides them.
        steps: Optimiser steps of the run.
        every: Optimiser steps between checkpoints.
        epoch_ends: Steps in which an epoch ends.

    Raises:
        ConfigError: if the run is too short for them.
    """
    inside = [end for end in epoch_ends if end < steps - 1]
    written = range(every, steps - 1, every)
    if not inside or not written:
        raise ConfigError(
            f"{steps} steps with a checkpoint every {every} and an epoch's end at {list(epoch_ends) or 'none'} leave "
            "nothing to kill at; give more steps, or a smaller checkpoint_every"
        )
    draw = random.Random(seed)
    moments = [_moment(draw, "checkpoint", step) for step in _spread(draw, written, kills // 4)]
    moments += [_moment(draw, "epoch", step) for step in _spread(draw, inside, kills // 5)]
    moments += [_moment(draw, "start", draw.randrange(1, steps - 1)) for _ in range(kills // 10)]
    moments += [_moment(draw, "anywhere", draw.randrange(1, steps - 1)) for _ in range(kills - len(moments))]
    return sorted(moments, key=lambda moment: moment.step)


def _moment(draw: random.Random, kind: Literal["anywhere", "checkpoint", "epoch", "start"], step: int) -> Moment:
    return Moment(kind=kind, step=step, wait=draw.random() * (LONGEST_START if kind == "start" else 1.0))


def _spread(draw: random.Random, steps: Sequence[int], count: int) -> list[int]:
    """`count` of the steps, each as often as any other, give or take one."""
    chosen: list[int] = []
    while len(chosen) < count:
        chosen += draw.sample(list(steps), min(len(steps), count - len(chosen)))
    return chosen
