"""What a study compares, as its file says: `scripts/studies/definitions/<name>.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from blip2_train.errors import ConfigError
from blip2_train.system.records import check_record, parse_yaml

FOLDER = Path(__file__).parent / "definitions"
Command = Literal["train", "evaluate", "capfilt"]
"""What a step runs."""


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was expected, written down before the first run."""

    written: str
    """Day, `2026-12-01`."""
    text: str


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command that each arm runs."""

    train: str = ""
    """Recipe of a training; or"""
    evaluate: str = ""
    """task of an evaluation; or"""
    capfilt: bool = False
    """true = scenes with wrong captions (`{of}/noisy` in the settings of a training of them), and what CapFilt makes of
    them (`{of}/capfilt`), as of `capfilt.py demo`."""
    of: str | None = None
    """The earlier step whose export it starts from, evaluates, or writes captions with; those are scored by what this
    captioner started from. A training of a CapFilt step has no start, and reads its sets."""
    settings: list[str] = []
    """As on the command line; `{data}` is the folder of the data (`paths.data_dir`), `{of}` that of the run of `of`."""

    @property
    def command(self) -> Command:
        """Which of the three it runs."""
        return "train" if self.train else "evaluate" if self.evaluate else "capfilt"


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way of training."""

    label: str
    settings: dict[str, list[str]] = {}
    """By step, in what it differs from the baseline."""
    of: dict[str, str | None] = {}
    """By step, where it starts from another step than the baseline does; null = from scratch."""
    seeds: tuple[int, ...] | None = None
    """Fewer seeds than the study's, for a first look: with one there is no interval, so nothing is claimed."""
    curve: bool = True
    """Whether its courses are drawn; more than ten lines cannot be told apart."""


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that arms are compared by."""

    step: str
    name: str
    """As in the results of that step."""
    label: str
    better: Literal["higher", "lower"] = "higher"
    curve: bool = False
    """Whether its course over the steps of a training is drawn."""
    hits_at: float | None = None
    """For scores that are a share: a sample counts if its own score (a rank) is at most this; scenes are then
    resampled, too."""
    scenes: bool = False
    """For scores that are the mean of those of single samples (CIDEr): scenes are then resampled, too."""

    @property
    def key(self) -> str:
        """Its name in the record."""
        return f"{self.step}/{self.name}"

    @property
    def by_scene(self) -> bool:
        """Whether single scenes have scores of their own."""
        return self.scenes or self.hits_at is not None


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and the runs that answer it; the first arm is the baseline."""

    title: str
    question: str
    expected: Expectation
    steps: dict[str, Step]
    arms: dict[str, Arm]
    scores: list[Score]
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def baseline(self) -> str:
        """Name of the arm that the others are compared with."""
        return next(iter(self.arms))


def names() -> list[str]:
    """All studies."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_study(name: str) -> Study:
    """A study by its name, or by the path of a file that ends in `.yaml`.

    Raises:
        ConfigError: if there is none, or its file does not fit together.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"there is no study {name!r}; there are {', '.join(names())}, or give the path of a file.yaml"
        )
    fix = "see scripts/studies/definition.py for what a study holds"
    study = check_record(parse_yaml(path.read_text("utf-8"), path, fix, ConfigError), Study, path, fix, ConfigError)
    if problem := _problem(study):
        raise ConfigError(f"{path}: {problem}")
    return study


def _problem(study: Study) -> str | None:
    """What does not fit together."""
    if not study.arms or not study.scores or not study.steps:
        return "a study has steps, arms and scores"
    known: list[str] = []
    for name, step in study.steps.items():
        if [bool(step.train), bool(step.evaluate), step.capfilt].count(True) != 1:
            return f"step {name} has either train, evaluate or capfilt"
        if step.of is not None and step.of not in known:
            return f"step {name} starts from {step.of!r}, which is no earlier step"
        if step.evaluate and step.of is None:
            return f"step {name} evaluates nothing; give of:"
        known.append(name)
    if study.arms[study.baseline].seeds is not None:
        return f"arm {study.baseline} is compared with all others, so it has all seeds"
    for name, arm in study.arms.items():
        if arm.seeds is not None and not set(arm.seeds) <= set(study.seeds):
            return f"arm {name} has seeds that the study does not have"
        named = [*arm.settings, *arm.of, *(of for of in arm.of.values() if of is not None)]
        for begun, origin in arm.of.items():
            if begun in known and origin in known and known.index(origin) >= known.index(begun):
                return f"arm {name}: step {begun} starts from {origin!r}, which is no earlier step"
            if origin is None and begun in known and study.steps[begun].evaluate:
                return f"arm {name}: step {begun} evaluates nothing; give of:"
        if wrong := next((step for step in named if step not in known), None):
            return f"arm {name} names {wrong!r}, which is no step"
    if wrong := next((score.step for score in study.scores if score.step not in known), None):
        return f"scores name {wrong!r}, which is no step"
    if wrong := next((score.step for score in study.scores if study.steps[score.step].capfilt), None):
        return f"scores name {wrong!r}, which is a step without scores"
    return None
