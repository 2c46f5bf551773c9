"""The results of a study as plain values, read from the files that its runs left."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from blip2_train.cli.evaluation import PREDICTIONS, SAMPLE_SCORES
from blip2_train.errors import ConfigError
from blip2_train.evaluation.report.results import program_versions
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics
from blip2_train.system.atomic_write import read_checked
from studies.definition import Score, Study
from studies.intervals import difference_interval
from studies.plan import Plan, PlannedRun
from studies.running import COST

Record = dict[str, Any]


def read_record(name: str, study: Study, plan: Plan) -> Record:
    """All results of a plan whose runs are finished.

    By arm, each score has its `mean` over the seeds and its `values` by seed, and, for all arms but the baseline, the
    `difference` from the baseline's mean with its `interval` and whether that is `clear` of zero; a score of a step
    that the arm does without has no mean. The `curves` of trainings have steps, mean and values. `cpu_seconds`
    are those of all steps of an arm, over all seeds.
    """
    return {
        "study": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": program_versions(),
        "title": study.title,
        "expected": msgspec.to_builtins(study.expected),
        "seeds": list(plan.seeds),
        "scores": {score.key: msgspec.to_builtins(score) | {"by_scene": score.by_scene} for score in study.scores},
        "arms": {arm: _arm(study, plan, arm) for arm in plan.arms},
    }


def _arm(study: Study, plan: Plan, arm: str) -> Record:
    by_seed = plan.arms[arm]
    return {
        "label": study.arms[arm].label,
        "curve": study.arms[arm].curve,
        "runs": {
            str(seed): {step: {"key": run.key, "settings": list(run.settings)} for step, run in steps.items()}
            for seed, steps in by_seed.items()
        },
        "cpu_seconds": _cost(by_seed),
        "scores": {score.key: _score(score, study, plan, arm) for score in study.scores},
        "curves": {score.key: _curves(score, by_seed) for score in study.scores if score.curve},
    }


def _score(score: Score, study: Study, plan: Plan, arm: str) -> Record:
    values = {
        str(seed): _value(score, steps[score.step]) for seed, steps in plan.arms[arm].items() if score.step in steps
    }
    known = [value for value in values.values() if value is not None]
    result: Record = {"mean": statistics.mean(known) if known and len(known) == len(values) else None, "values": values}
    if arm == study.baseline or result["mean"] is None:
        return result
    baseline = plan.arms[study.baseline]
    pairs = [(steps[score.step], baseline[seed][score.step]) for seed, steps in plan.arms[arm].items()]
    before = [_value(score, other) for _, other in pairs]
    if any(value is None for value in before):
        return result
    rows = [_samples(score, run) - _samples(score, other) for run, other in pairs]
    interval = difference_interval(np.stack(rows))
    result["difference"] = float(np.mean(np.stack(rows)))
    if interval is not None:
        result |= {"interval": [interval.low, interval.high], "clear": interval.clear}
    return result


def _value(score: Score, run: PlannedRun) -> float | None:
    results = _results(run)
    if run.command == "evaluate":
        (task,) = results["tasks"].values()
        results = task["scores"]
    value: float | None = results.get(score.name)
    return value


def _samples(score: Score, run: PlannedRun) -> NDArray[np.float64]:
    """Values of single scenes `(N,)` in the unit of the score, or the score itself `(1,)`."""
    if not score.by_scene:
        return np.array([_value(score, run)], dtype=np.float64)
    (task,) = _results(run)["tasks"]
    path = run.folder / PREDICTIONS / f"{task}{SAMPLE_SCORES}"
    samples = read_checked(path, "remove the folder of that run; the same command makes it again")["scores"]
    own = np.array([samples[key] for key in sorted(samples)], dtype=np.float64)
    values = own if score.hits_at is None else np.where(own <= score.hits_at, 100.0, 0.0)
    whole = _value(score, run)
    if whole is None or not np.isclose(values.mean(), whole, rtol=1e-6):
        raise ConfigError(
            f"{score.key} is {whole}, and the mean over the single scores of {path} is {values.mean()}: these are of "
            "another score; leave out scenes or hits_at"
        )
    return values


def _results(run: PlannedRun) -> Record:
    return read_checked(run.results, f"remove {run.folder}; the same command makes that run again")


def _cost(by_seed: dict[int, dict[str, PlannedRun]]) -> float | None:
    runs = {run.key: run for steps in by_seed.values() for run in steps.values()}.values()
    costs = [read_checked(run.folder / COST, "")["cpu_seconds"] for run in runs if (run.folder / COST).is_file()]
    return sum(costs) if len(costs) == len(runs) and None not in costs else None


def _curves(score: Score, by_seed: dict[int, dict[str, PlannedRun]]) -> Record:
    """Steps of the validations, the values by seed, and their mean; all empty for an arm without that training."""
    courses = {
        str(seed): curve(read_metrics(steps[score.step].folder / METRICS_FILE), score.name)
        for seed, steps in by_seed.items()
        if score.step in steps
    }
    points = next((points for points, _ in courses.values()), [])
    values = {seed: course for seed, (_, course) in courses.items()}
    mean = [statistics.mean(each) for each in zip(*values.values(), strict=True)]
    return {"steps": points, "mean": mean, "values": values}
