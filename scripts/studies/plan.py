"""The runs of a study: the settings of each, which starts from which, and which are one and the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import blip2_train
from blip2_train.config.compose import compose, compose_evaluation, instantiate
from blip2_train.config.overrides import quoted
from blip2_train.errors import ConfigError
from blip2_train.training.earlier_runs import EXPORT
from studies.definition import Command, Step, Study
from studies.options import StudyOptions

RUNS = "runs"
SETS_FILE = "capfilt_demo.json"
_OTHER_WORLDS = 2
"""Added to a seed for the scenes of a CapFilt step: 1 is the world on which its models were trained."""
_UNNAMED = "paths.run_dir=run"
"""Instead of a folder named by the time, while the key is made."""
_PACKAGE = Path(blip2_train.__file__).parent
_NOT_IN_KEY = ("paths", "resume_from", "init_from", "checkpoint", "checkpoints", "overwrite", "verbose")
"""Of a configuration: where things lie. What a run starts from counts by that run's own key."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of an ordinary command."""

    command: Command
    settings: tuple[str, ...]
    """As on the command line."""
    key: str
    """Changes with anything that its results depend on."""
    folder: Path
    parent: PlannedRun | None = None
    """The run whose export it starts from, evaluates or writes captions with, or whose sets it reads."""

    @property
    def results(self) -> Path:
        """The file that it leaves when it is done."""
        return self.folder / (SETS_FILE if self.command == "capfilt" else "results.json")

    @property
    def export(self) -> Path:
        """Where a training leaves its weights."""
        return self.folder / EXPORT


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a study."""

    folder: Path
    """Where the table, the figure and the record go."""
    seeds: tuple[int, ...]
    arms: dict[str, dict[int, dict[str, PlannedRun]]]
    """By arm, seed and step; an arm without any of the seeds is left out."""

    @property
    def runs(self) -> list[PlannedRun]:
        """Each once, in an order in which they can be made; a run that several arms share is one."""
        every = (run for arm in self.arms.values() for steps in arm.values() for run in steps.values())
        return list({run.key: run for run in every}.values())


def make_plan(name: str, study: Study, options: StudyOptions) -> Plan:
    """Compose the configuration of every run, so that what cannot be used is refused before the first starts.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    first = next(step for step in study.steps.values() if step.train)
    paths = compose([f"experiment={first.train}", *options.training, "init_from=null"]).paths
    roots = (Path(paths.output_dir) / "studies", Path(paths.data_dir))
    arms = options.arms
    chosen = [arm for arm in study.arms if arms is None or arm in arms or arm == study.baseline]
    seeds = study.seeds if options.seeds is None else options.seeds
    plans = {}
    for arm in chosen:
        own = study.arms[arm].seeds
        if these := [seed for seed in seeds if own is None or seed in own]:
            plans[arm] = {seed: _runs_of(study, arm, seed, options, roots) for seed in these}
    return Plan(folder=roots[0] / name, seeds=seeds, arms=plans)


def _runs_of(
    study: Study, arm: str, seed: int, options: StudyOptions, roots: tuple[Path, Path]
) -> dict[str, PlannedRun]:
    """The steps of an arm that lead to its last ones; a score of another step is not the arm's."""
    differs, runs = study.arms[arm], dict[str, PlannedRun]()
    own = {name: step.of for name, step in study.steps.items()}
    origins = own | differs.of
    last = _with_origins({score.step for score in study.scores}, own)
    last -= {own[name] for name in last}
    needed = _with_origins(last, origins)
    for name, step in study.steps.items():
        if name in needed:
            origin = origins[name]
            parent = None if origin is None else runs[origin]
            folders = {"{data}": roots[1]} | ({} if parent is None else {"{of}": parent.folder})
            given = [_filled(text, folders) for text in step.settings + differs.settings.get(name, [])]
            try:
                runs[name] = _run(step, given, seed, options, roots, parent)
            except ConfigError as error:
                raise ConfigError(f"arm {arm}, step {name}: {error}") from None
    return runs


def _with_origins(steps: Iterable[str], origins: Mapping[str, str | None]) -> set[str]:
    """Steps, and all that they start from.

    Example:
        >>> sorted(_with_origins(["c"], {"a": None, "b": "a", "c": "b", "d": "b"}))
        ['a', 'b', 'c']
    """
    needed = set[str]()
    for step in steps:
        origin: str | None = step
        while origin is not None:
            needed.add(origin)
            origin = origins[origin]
    return needed


def _run(
    step: Step,
    given: list[str],
    seed: int,
    options: StudyOptions,
    roots: tuple[Path, Path],
    parent: PlannedRun | None,
) -> PlannedRun:
    if step.command == "capfilt":
        return _sets(given, seed, roots, parent)
    if step.command == "train":
        settings = [f"experiment={step.train}", *given, *options.training, "monitor=null", f"seed={seed}"]
    else:
        settings = [f"evaluation=[{step.evaluate}]", *given, *options.evaluation]
    return planned(step.command, step.train or step.evaluate, settings, roots[0] / RUNS, roots, parent)


def _sets(given: list[str], seed: int, roots: tuple[Path, Path], captioner: PlannedRun | None) -> PlannedRun:
    """A set with wrong captions, and what CapFilt makes of it with the models of two trainings."""
    scorer = None if captioner is None else captioner.parent
    if captioner is None or scorer is None:
        raise ConfigError("a CapFilt step is of: a captioner that starts from the step that scores its captions")
    settings = ["demo", "steps=0", *given, f"seed={seed + _OTHER_WORLDS}"]
    key = _digest(["capfilt", settings, captioner.key])
    own = roots[0] / RUNS / f"capfilt_{key}"
    settings += [f"captioner={captioner.export}", f"scorer={scorer.export}", f"output={own}"]
    return PlannedRun(command="capfilt", settings=tuple(settings), key=key, folder=own, parent=captioner)


def _filled(text: str, folders: Mapping[str, Path]) -> str:
    for name, folder in folders.items():
        text = text.replace(name, str(folder))
    return text


def planned(
    command: Command,
    name: str,
    settings: list[str],
    folder: Path,
    roots: Sequence[Path],
    parent: PlannedRun | None = None,
) -> PlannedRun:
    """One run with a folder of its own, which is named after all that its results depend on.

    Args:
        command: `train` or `evaluate`.
        name: Beginning of the folder's name.
        settings: As on the command line, without what the run starts from.
        folder: For the run's folder.
        roots: Paths whose names do not count: where data and results lie.
        parent: The run whose export it starts from, or evaluates, or whose sets it reads; None = neither.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    export = None if parent is None or parent.command == "capfilt" else parent.export
    # an export that is there already would give its own settings to the configuration, and so another key
    if command == "train":
        start = "init_from=null" if export is None else quoted("init_from", export)
        config = compose([*settings, "init_from=null", _UNNAMED])
        instantiate(config.optim)
    else:
        start = quoted("checkpoint", export or Path())
        config = compose_evaluation([*settings, quoted("checkpoint", Path()), _UNNAMED])
    key = _key(command, config, parent, roots)
    own = folder / f"{name}_{key}"
    settings = [*settings, start, quoted("paths.run_dir", own)]
    return PlannedRun(command=command, settings=tuple(settings), key=key, folder=own, parent=parent)


def _key(command: str, config: DictConfig, parent: PlannedRun | None, roots: Sequence[Path]) -> str:
    content: Any = OmegaConf.to_container(config)
    known = {name: value for name, value in content.items() if name not in _NOT_IN_KEY}
    return _digest([command, _below_roots(known, [*roots, _PACKAGE]), parent and parent.key])


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def _below_roots(value: Any, roots: Sequence[Path]) -> Any:
    """Plain values, in which a path below the n-th of the roots begins with its number."""
    if isinstance(value, dict):
        return {str(key): _below_roots(inner, roots) for key, inner in value.items()}
    if isinstance(value, list):
        return [_below_roots(inner, roots) for inner in value]
    if isinstance(value, str):
        for number, root in enumerate(roots):
            if value == str(root) or value.startswith(f"{root}/"):
                return f"<{number}>{value[len(str(root)) :]}"
    return value
