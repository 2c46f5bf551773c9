"""The runs of an ablation: the settings of each, and which starts from which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from ablations.options import AblationOptions
from blip2_train.config.compose import compose, compose_evaluation, instantiate
from blip2_train.training.earlier_runs import EXPORT

STAGE_1, STAGE_2, FINE_TUNING, TASK = "demo_stage1", "demo_stage2_opt", "demo_retrieval", "demo_retrieval"
POINTS = 8
"""Of stage 2's curve."""
FOLDER = "ablations"
"""Of everything an ablation writes, below `paths.output_dir`."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the ordinary training or evaluation command."""

    name: str
    """Also of its folder: `stage1`, `stage1_without_itg`, …"""
    command: Literal["train", "evaluate"]
    settings: tuple[str, ...]
    """As on the command line."""
    config: DictConfig
    """What the settings compose to."""
    folder: Path
    parent: PlannedRun | None = None
    """The run whose export it starts from, or evaluates."""

    @property
    def results(self) -> Path:
        """The file that it leaves when it is done."""
        return self.folder / "results.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs, in an order in which they can be made."""

    folder: Path
    """Where the runs lie, and the tables."""
    by_seed: dict[int, dict[str, PlannedRun]]
    """By seed and name."""
    numbers: dict[str, Any]
    """Seeds, steps and validation distance in full, whatever of them was given."""

    @property
    def runs(self) -> list[PlannedRun]:
        """Of all seeds."""
        return [run for runs in self.by_seed.values() for run in runs.values()]


def make_plan(options: AblationOptions) -> Plan:
    """Compose the configuration of every run, so that what cannot be used is refused before the first starts.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    stage1, stage2 = (
        compose([f"experiment={recipe}", *options.training, "init_from=null", "validate_every=null"])
        for recipe in (STAGE_1, STAGE_2)
    )
    stage2_steps = options.stage2_steps or stage2.steps
    numbers = {
        "seeds": list(options.seeds),
        "stage1_steps": options.stage1_steps or stage1.steps,
        "stage2_steps": stage2_steps,
        "validate_every": options.validate_every or max(1, stage2_steps // POINTS),
        "finetune_steps": options.finetune_steps,
    }
    folder = Path(stage1.paths.output_dir) / FOLDER
    by_seed = {seed: _runs_of(seed, folder / f"seed_{seed}", options, numbers) for seed in options.seeds}
    return Plan(folder=folder, by_seed=by_seed, numbers=numbers)


def _runs_of(seed: int, folder: Path, options: AblationOptions, numbers: dict[str, Any]) -> dict[str, PlannedRun]:
    runs: dict[str, PlannedRun] = {}

    def train(name: str, recipe: str, steps: int, every: int, *settings: str, parent: PlannedRun | None) -> PlannedRun:
        given = [f"experiment={recipe}", *options.training, f"seed={seed}", f"steps={steps}", f"validate_every={every}"]
        start = "init_from=null" if parent is None else _path("init_from", parent.folder / EXPORT)
        given += [start, *settings, _path("paths.run_dir", folder / name)]
        config = compose(given)
        instantiate(config.optim)
        runs[name] = PlannedRun(
            name=name, command="train", settings=tuple(given), config=config, folder=folder / name, parent=parent
        )
        return runs[name]

    for suffix, ablated in (("", ()), ("_without_itg", ("objective.itg_weight=0",))):
        steps = numbers["stage1_steps"]
        trained = train(f"stage1{suffix}", STAGE_1, steps, steps, *ablated, parent=None)
        if steps := options.finetune_steps:
            fine = ("monitor=null", *ablated)
            trained = train(f"finetuning{suffix}", FINE_TUNING, steps, steps, *fine, parent=trained)
        given = [f"evaluation=[{TASK}]", *options.evaluation, _path("checkpoint", trained.folder / EXPORT)]
        given.append(_path("paths.run_dir", folder / f"retrieval{suffix}"))
        runs[f"retrieval{suffix}"] = PlannedRun(
            name=f"retrieval{suffix}",
            command="evaluate",
            settings=tuple(given),
            config=compose_evaluation(given),
            folder=folder / f"retrieval{suffix}",
            parent=trained,
        )
    second = (STAGE_2, numbers["stage2_steps"], numbers["validate_every"])
    train("stage2", *second, parent=runs["stage1"])
    train("stage2_without_stage1", *second, parent=None)
    return runs


def _path(key: str, path: Path) -> str:
    """A setting whose value is a path, whatever characters that holds."""
    escaped = str(path).replace("'", "\\'")
    return f"{key}='{escaped}'"
