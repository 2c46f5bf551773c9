"""The settings of a study, taken out of a command line that otherwise holds those of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from blip2_train.config.key_values import split_settings
from blip2_train.config.run_config import EvaluationConfig, RunConfig
from blip2_train.errors import ConfigError
from studies.definition import Study

SYNTAX = """\
  seeds=<a,b,…>  every arm once for each (default: those of the study)
  arms=<a,b,…>   these arms and the baseline only
  jobs=<n>       runs at once, each with its share of the cores (default: 1)
  --help         this text

Any other setting goes to the runs: those of an evaluation (tasks.demo_retrieval.limit=64, device=cpu) to the
evaluations, paths.data_dir and paths.output_dir to all, the rest (trainer=cpu, steps=200) to every training."""
_SET_HERE = {
    "experiment": "the study names its recipes",
    "evaluation": "the study names its tasks",
    "seed": "pass seeds=",
    "init_from": "the study says what starts from what",
    "resume_from": "the same command goes on with what was stopped",
    "monitor": "the last weights count in every run",
    "checkpoint": "the exports of the same seed are evaluated",
    "checkpoints": "the exports of the same seed are evaluated",
    "overwrite": "each run has a folder of its own",
    "paths.run_dir": "pass paths.output_dir=; runs lie in its folder studies",
}


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Which runs, and how many at once."""

    seeds: tuple[int, ...] | None = None
    arms: tuple[str, ...] | None = None
    jobs: int = 1
    training: tuple[str, ...] = ()
    """Settings of every training."""
    evaluation: tuple[str, ...] = ()
    """Settings of every evaluation."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1, got {self.jobs}")
        if self.seeds is not None:
            if repeated := [seed for seed in self.seeds if self.seeds.count(seed) > 1]:
                raise ConfigError(f"seeds names {repeated[0]} twice; a seed gives the same run each time")
            if not self.seeds or min(self.seeds) < 0:
                raise ConfigError("seeds must be one number from 0 or more, for instance seeds=0,1,2")


_TRAINING_KEYS = {field.name for field in fields(RunConfig)}
_EVALUATION_KEYS = {field.name for field in fields(EvaluationConfig)}


def read_options(arguments: Sequence[str], study: Study) -> StudyOptions:
    """The study's options, with the arguments that belong to its runs.

    Raises:
        ConfigError: if a value cannot be used, an arm is unknown, or a setting is what the study decides.
    """
    varied = {_key(setting) for arm in study.arms.values() for some in arm.settings.values() for setting in some}
    for argument in arguments:
        key = _key(argument)
        if reason := _SET_HERE.get(key) or _SET_HERE.get(key.partition(".")[0]):
            raise ConfigError(f"{key} cannot be set in a study: {reason}")
        if any(f"{key}.".startswith(f"{one}.") or f"{one}.".startswith(f"{key}.") for one in varied):
            raise ConfigError(f"{key} cannot be set in this study: its arms differ in it")
    own, rest = split_settings(arguments, StudyOptions, without=("training", "evaluation"))
    if unknown := [arm for arm in own.arms or () if arm not in study.arms]:
        raise ConfigError(f"there is no arm {unknown[0]!r} in this study; there are {', '.join(study.arms)}")
    firsts = [_key(argument).partition(".")[0] for argument in rest]
    return replace(
        own,
        training=tuple(
            a for a, f in zip(rest, firsts, strict=True) if f in _TRAINING_KEYS or f not in _EVALUATION_KEYS
        ),
        evaluation=tuple(a for a, f in zip(rest, firsts, strict=True) if f in _EVALUATION_KEYS),
    )


def _key(setting: str) -> str:
    return setting.partition("=")[0].lstrip("+~")
