"""The settings of an ablation, taken out of a command line that otherwise holds those of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from blip2_train.config.key_values import split_settings
from blip2_train.config.run_config import EvaluationConfig, RunConfig
from blip2_train.errors import ConfigError

SYNTAX = """\
  seeds=<a,b,…>       one run of everything for each (42)
  stage1_steps=<n>    optimiser steps of stage 1 (as in demo_stage1)
  stage2_steps=<n>    optimiser steps of stage 2 (as in demo_stage2_opt)
  validate_every=<n>  optimiser steps between the points of stage 2's curve (an eighth of its steps)
  finetune_steps=<n>  optimiser steps of retrieval fine-tuning before retrieval is scored (0 = none)
  --help              this text

Any other setting goes to the runs: those of an evaluation (tasks.demo_retrieval.limit=64, device=cpu) to the
evaluations, paths.data_dir and paths.output_dir to all, the rest (trainer=cpu, optim.lr=5e-4) to every training."""
_SET_HERE = {
    "experiment": "the recipes are demo_stage1 and demo_stage2_opt",
    "evaluation": "it is demo_retrieval",
    "seed": "pass seeds=",
    "steps": "pass stage1_steps= or stage2_steps=",
    "init_from": "stage 2 starts from the stage 1 of the same seed, and from none",
    "init_text_from": "no run reads questions",
    "resume_from": "the same command goes on with what was stopped",
    "monitor": "the last weights count in every run",
    "checkpoint": "the exports of the same seed are evaluated",
    "checkpoints": "the exports of the same seed are evaluated",
    "objective.itg_weight": "it is what is ablated",
    "paths.run_dir": "pass paths.output_dir=; runs lie in its folder ablations",
}


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """What to run, and how often."""

    seeds: tuple[int, ...] = (42,)
    stage1_steps: int | None = None
    """Optimiser steps of stage 1; None = the recipe's."""
    stage2_steps: int | None = None
    """Optimiser steps of stage 2; None = the recipe's."""
    validate_every: int | None = None
    """Optimiser steps between validations of stage 2; None = an eighth of its steps."""
    finetune_steps: int = 0
    """Optimiser steps of retrieval fine-tuning; 0 = none."""
    training: tuple[str, ...] = ()
    """Settings of every training."""
    evaluation: tuple[str, ...] = ()
    """Settings of every evaluation."""

    def __post_init__(self) -> None:
        for name in ("stage1_steps", "stage2_steps", "validate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.finetune_steps < 0:
            raise ConfigError(f"finetune_steps must be 0 (none) or more, got {self.finetune_steps}")
        if repeated := [seed for seed in self.seeds if self.seeds.count(seed) > 1]:
            raise ConfigError(f"seeds names {repeated[0]} twice; a seed gives the same run each time")
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds must be 0 or more, got {min(self.seeds)}")


_TRAINING_KEYS = {field.name for field in fields(RunConfig)}
_EVALUATION_KEYS = {field.name for field in fields(EvaluationConfig)}


def read_options(arguments: Sequence[str]) -> AblationOptions:
    """The ablation's options, with the arguments that belong to its runs.

    Raises:
        ConfigError: if a value cannot be used, or a setting is what the ablation decides.
    """
    for argument in arguments:
        key = argument.partition("=")[0]
        name, first = key.lstrip("+~"), key.lstrip("+~").partition(".")[0]
        if name in _SET_HERE or first in _SET_HERE:
            raise ConfigError(f"{key} cannot be set in an ablation: {_SET_HERE.get(name) or _SET_HERE[first]}")
    own, rest = split_settings(arguments, AblationOptions, without=("training", "evaluation"))
    firsts = [argument.partition("=")[0].lstrip("+~").partition(".")[0] for argument in rest]
    return replace(
        own,
        training=tuple(a for a, first in zip(rest, firsts, strict=True) if _is_for_training(first)),
        evaluation=tuple(a for a, first in zip(rest, firsts, strict=True) if first in _EVALUATION_KEYS),
    )


def _is_for_training(first: str) -> bool:
    return first in _TRAINING_KEYS or first not in _EVALUATION_KEYS
