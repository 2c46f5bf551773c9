"""What is compared of runs: their settings, the scores that they reached, and where their curves lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.metric_format import MetricFormat, part_label
from blip2_train.evaluation.report.logged_scores import COUNTS, logged_format
from blip2_train.evaluation.run_metrics import METRICS_FILE, RESULTS, curve, read_metrics, smaller_is_better
from blip2_train.system.atomic_write import read_checked
from blip2_train.system.path_names import short_names
from blip2_train.system.records import parse_yaml

CONFIG = "config.yaml"
OWN_FOLDER = "<run folder>"
"""Stands for a run's own folder in its settings."""
_HELD_OUT = ("data.validation", "data.holdout")
_TRAINED_ON = ("data.sources.",)
_COST = {
    "steps": MetricFormat(label="optimiser steps", digits=0),
    "samples_per_second": MetricFormat(label="samples/s", digits=0),
    "seconds": MetricFormat(label="seconds", digits=0),
}
_FIX = "give run folders with metrics.csv or results.json"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of a run."""

    value: float
    """On the scorer's scale."""
    format: MetricFormat
    ranked: bool = True
    """Whether one value is better than another."""
    measured_on: frozenset[str] = frozenset()
    """What tells on which samples; one score is better than another on the same ones only."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run, or an evaluation."""

    name: str
    """Under which it is shown."""
    folder: Path
    settings: Mapping[str, str]
    """By key (`optim.lr`), as written; empty without `config.yaml`."""
    scores: Mapping[str, Score]
    """By label."""
    state: str = ""
    """Which validation the scores are of, and how far a run is that is not finished; empty for an evaluation."""


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """What is known of each folder.

    Raises:
        ConfigError: if there are fewer than two, or one is no run.
        DamagedFile: if a file of one is not what was written.
    """
    different = list(dict.fromkeys(folder.resolve() for folder in folders))
    if len(different) < 2:
        raise ConfigError(f"a comparison needs two different runs or more, got {len(different)}; {_FIX}")
    names = short_names([str(folder) for folder in different])
    return [_read_run(name, folder) for name, folder in zip(names, different, strict=True)]


def _read_run(name: str, folder: Path) -> ComparedRun:
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; {_FIX}")
    if not any((folder / file).is_file() for file in (METRICS_FILE, RESULTS)):
        raise ConfigError(f"{folder} holds neither {METRICS_FILE} nor {RESULTS}, so it is no run; {_FIX}")
    settings, path = _settings(folder), folder / RESULTS
    results = read_checked(path, "compare without this run, or run it again") if path.is_file() else {}
    if isinstance(tasks := results.get("tasks"), dict):
        return ComparedRun(name=name, folder=folder, settings=settings, scores=dict(_task_scores(tasks)))
    rows, monitor = read_metrics(folder / METRICS_FILE), settings.get("monitor", "")
    validation = _validation(rows, results, monitor)
    return ComparedRun(
        name=name,
        folder=folder,
        settings=settings,
        scores=dict(_run_scores(rows, results, validation, settings)),
        state=_state(rows, results, validation, settings),
    )


def _settings(folder: Path) -> dict[str, str]:
    path = folder / CONFIG
    if not path.is_file():
        return {}
    fix = "mend or remove it, then compare again"
    try:
        content = parse_yaml(path.read_text("utf-8"), path, fix, ConfigError)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); {fix}") from None
    paths = content.get("paths")
    own = str(paths.get("run_dir") or "") if isinstance(paths, dict) else ""
    flat = dict(_flat("", content))
    return {key: _without_folder(value, own) for key, value in flat.items()}


def _without_folder(value: str, own: str) -> str:
    """A value, of which the run's own folder is only named if it lies in it."""
    inside = bool(own) and (value == own or value.startswith(f"{own}/"))
    return OWN_FOLDER + value[len(own) :] if inside else value


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Keys with dots and values as text; lists of plain values stay together."""
    inner: Iterator[tuple[str, Any]] | None = None
    if isinstance(value, dict) and value:
        inner = ((str(name), part) for name, part in value.items())
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        inner = ((str(number), part) for number, part in enumerate(value))
    if inner is None:
        yield key, {None: "null", True: "true", False: "false"}.get(value, str(value)) if _plain(value) else str(value)
        return
    for name, part in inner:
        yield from _flat(f"{key}.{name}" if key else name, part)


def _natural(key: str) -> list[str]:
    """Sorts R@5 before R@10."""
    return [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _task_scores(tasks: Mapping[str, Any]) -> Iterator[tuple[str, Score]]:
    """The scores of an evaluation's tasks."""
    for task, content in tasks.items():
        title, scores = content.get("title", task), content.get("scores", {})
        samples = frozenset({str(content.get("examples")), str(content.get("data_fingerprints"))})
        for name, value in scores.items():
            if isinstance(value, int | float):
                part, _, metric = name.rpartition("/")
                what = logged_format(metric)
                label = ", ".join(filter(None, (title, part_label(part), what.row, what.heading)))
                yield label, Score(value=value, format=what, measured_on=samples)


def _validation(rows: Sequence[Mapping[str, str]], results: Mapping[str, Any], monitor: str) -> int | None:
    """The step of the validation whose weights a run exports, or would export now; None if there is none.

    Of runs with a monitored score it is the best so far, of others the last, be they finished or not.
    """
    if isinstance(step := results.get("exported_step"), int | float):
        return int(step)
    validated = [row for row in rows if any(value and key.startswith("val/") for key, value in row.items())]
    scores = [(float(row[monitor]), int(row["step"])) for row in validated if row.get(monitor)]
    if scores:
        sign = 1 if smaller_is_better(monitor) else -1
        return min(scores, key=lambda score: (sign * score[0], score[1]))[1]
    return int(validated[-1]["step"]) if validated else None


def _state(
    rows: Sequence[Mapping[str, str]], results: Mapping[str, Any], validation: int | None, settings: Mapping[str, str]
) -> str:
    """What `ComparedRun.state` says."""
    monitor, parts = settings.get("monitor", "null"), list[str]()
    if not results and rows:
        steps = f" of {int(settings['steps']):,}" if settings.get("steps", "").isdigit() else ""
        parts.append(f"not finished: at step {int(rows[-1]['step']):,}{steps}")
    if validation is not None:
        which = f"the best by {monitor}" if any(row.get(monitor) for row in rows) else "the last"
        parts.append(f"held-out scores of step {validation:,}, {which}")
    return "; ".join(parts)


def _run_scores(
    rows: list[dict[str, str]], results: Mapping[str, Any], validation: int | None, settings: Mapping[str, str]
) -> Iterator[tuple[str, Score]]:
    """The held-out scores of a training at a validation, its last losses, and what it took."""
    values: dict[str, float] = {}
    for key in rows[0] if rows else ():
        points = list(zip(*curve(rows, key), strict=True))
        if key.startswith("val/") and validation is not None:
            points = [(step, value) for step, value in points if step <= validation]
        if points:
            values[key] = points[-1][1]
    values |= {key: value for key, value in results.items() if isinstance(value, int | float)}
    if rows:
        values.setdefault("steps", float(rows[-1]["step"]))
    if "seconds_since_step" in values:
        values.pop("seconds", None)  # only those since then
    counts = {f"{key}={value}" for key, value in values.items() if key.partition("/")[2] in COUNTS}
    held_out = _of(settings, _HELD_OUT) | counts
    if settings.get("data.holdout", "null") != "null":
        held_out |= _of(settings, _TRAINED_ON)  # of which the held-out samples are a part
    for side, label, samples in (("val/", "held-out", held_out), ("train/loss", "train", _of(settings, _TRAINED_ON))):
        for key in sorted((key for key in values if key.startswith(side)), key=_natural):
            name = key.partition("/")[2]
            what = logged_format(name)
            score = Score(value=values[key], format=what, ranked=name not in COUNTS, measured_on=frozenset(samples))
            yield f"{', '.join(filter(None, (what.row, what.heading)))}, {label}", score
    for key, what in _COST.items():
        if key in values:
            yield what.label, Score(value=values[key], format=what, ranked=False)


def _of(settings: Mapping[str, str], beginnings: tuple[str, ...]) -> set[str]:
    return {f"{key}={value}" for key, value in settings.items() if key.startswith(beginnings)}
