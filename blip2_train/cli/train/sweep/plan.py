"""Which runs a sweep consists of: the settings of each, composed and checked, and a run folder of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig, ListConfig

from blip2_train.config.compose import compose
from blip2_train.config.overrides import parse_setting, quoted
from blip2_train.errors import ConfigError

_OWN = {
    "paths.run_dir": "each run has a folder of its own, below paths.output_dir",
    "overwrite": "each run has a folder of its own",
    "resume_from": "a sweep starts new runs; one of them goes on by resume_from=<its folder> without --multirun",
}
"""Settings that a sweep cannot be given, and why."""


@dataclass(frozen=True)
class Processes:
    """What a launcher starts for each run."""

    nodes: int
    per_node: int


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    chosen: str
    """In what it differs from the others: `optim.lr=1e-4 seed=0`."""
    arguments: tuple[str, ...]
    """Of the training command."""
    folder: Path
    """Its run folder."""
    monitor: str | None
    """Score by which runs are compared, if its configuration names one."""


@dataclass(frozen=True)
class Sweep:
    """All runs, and where their comparison is written."""

    folder: Path
    jobs: tuple[Job, ...]


def plan_sweep(
    settings: Sequence[str], recipes: Path | None, processes: Processes | None, started: str | None = None
) -> Sweep:
    """Compose every run of a sweep; nothing is written.

    Args:
        settings: Of the command line, with several values for some keys.
        recipes: A folder with more recipes.
        processes: What the launcher starts for each run; None = the run starts its processes itself.
        started: What the folders are named after; None = the time.

    Raises:
        ConfigError: if a run's settings cannot be used, naming the run.
    """
    started = started or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    jobs: list[Job] = []
    output = Path()
    for given, chosen in _expand(settings):
        try:
            config = compose(given, recipes)
            given += [] if processes is None else _fit(config.trainer, processes)
        except ConfigError as error:
            raise ConfigError(f"run {len(jobs)} ({chosen}): {error}" if chosen else str(error)) from error
        folder = Path(config.paths.run_dir).expanduser().absolute().with_name(f"{started}_{len(jobs)}")
        more = [] if recipes is None else ["--config-dir", str(recipes.absolute())]
        arguments = (*more, *given, quoted("paths.run_dir", folder))
        jobs.append(Job(chosen, arguments, folder, config.monitor))
        output = output if len(jobs) > 1 else Path(config.paths.output_dir).expanduser().absolute()
    return Sweep(output / "sweeps" / started, tuple(jobs))


def _expand(settings: Sequence[str]) -> list[tuple[list[str], str]]:
    """The settings of each run, and those in which it differs from the others; of one key the later counts."""
    values: dict[str, list[str]] = {}
    swept: list[str] = []
    for setting in settings:
        override = parse_setting(setting)
        key = override.key_or_group
        if key in _OWN:
            raise ConfigError(f"{key} cannot be set in a sweep: {_OWN[key]}")
        swept = [other for other in swept if other != key]
        if not override.is_sweep_override():
            values[key] = [setting]
        elif override.is_discrete_sweep() and override.value_type != ValueType.GLOB_CHOICE_SWEEP:
            values[key] = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            swept.append(key)
        else:
            raise ConfigError(f"{setting!r}: a sweep needs the values themselves: {key}=a,b or {key}=range(0,4)")
    runs = [dict(zip(values, run, strict=True)) for run in itertools.product(*values.values())]
    return [(list(run.values()), " ".join(run[key] for key in values if key in swept)) for run in runs]


def _fit(trainer: DictConfig, processes: Processes) -> list[str]:
    """Settings by which a trainer uses the processes that a launcher starts.

    Raises:
        ConfigError: if the trainer needs another number.
    """
    devices: Any = trainer.devices
    if isinstance(devices, str) or devices == -1:  # auto: there is one process for each device
        devices = processes.per_node
    devices = len(devices) if isinstance(devices, ListConfig) else devices
    if (devices, trainer.num_nodes) != (processes.per_node, processes.nodes):
        raise ConfigError(
            f"the launcher starts {processes.per_node} processes on each of {processes.nodes} nodes, but the trainer "
            f"uses {devices} on {trainer.num_nodes}: hydra.launcher.tasks_per_node and trainer.devices (trainer=ddp), "
            "and hydra.launcher.nodes and trainer.num_nodes, must be the same"
        )
    return [f"trainer.devices={devices}"]
