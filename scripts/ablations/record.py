"""The scores of an ablation as plain values, read from the files that its runs left."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ablations.plan import TASK, Plan, PlannedRun
from blip2_train.evaluation.report.results import program_versions
from blip2_train.evaluation.run_metrics import METRICS_FILE, curve, read_metrics
from blip2_train.system.atomic_write import read_checked

Record = dict[str, Any]
WITH, WITHOUT = "with", "without"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A part of the paper's method, and what is scored with and without it."""

    name: str
    """Also its key in the record."""
    runs: dict[str, str]
    """By `WITH` and `WITHOUT`, the name of the run that holds the scores."""
    scores: tuple[str, ...]
    """Names as in the results of those runs."""
    lower_is_better: tuple[str, ...] = ()


ITG = Ablation(
    name="itg",
    runs={WITH: "retrieval", WITHOUT: "retrieval_without_itg"},
    scores=("itc/image_to_text_r1", "itc/text_to_image_r1", "image_to_text_r1", "text_to_image_r1"),
)
STAGE_1 = Ablation(
    name="stage1",
    runs={WITH: "stage2", WITHOUT: "stage2_without_stage1"},
    scores=("val/cider", "val/names_right", "val/loss_lm"),
    lower_is_better=("val/loss_lm",),
)


def read_record(plan: Plan) -> Record:
    """All results of the finished runs of a plan.

    By ablation and arm (`with`, `without`) each score has its `mean` over the seeds and its `values` by seed; null
    where it could not be computed. The `curves` of stage 2 have the same by step.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": program_versions(),
        "settings": plan.numbers,
        "runs": {
            f"seed_{seed}/{name}": list(run.settings)
            for seed, runs in plan.by_seed.items()
            for name, run in runs.items()
        },
        "scenes": min(_task(runs["retrieval"])["examples"] for runs in plan.by_seed.values()),
        ITG.name: _arms(ITG, plan),
        STAGE_1.name: _arms(STAGE_1, plan),
        "curves": {
            arm: _curves({str(seed): runs[name] for seed, runs in plan.by_seed.items()})
            for arm, name in STAGE_1.runs.items()
        },
    }


def _arms(ablation: Ablation, plan: Plan) -> Record:
    result: Record = {}
    for arm, name in ablation.runs.items():
        by_seed = {str(seed): _scores(runs[name]) for seed, runs in plan.by_seed.items()}
        result[arm] = {
            score: _over_seeds({s: values.get(score) for s, values in by_seed.items()}) for score in ablation.scores
        }
    return result


def _over_seeds(values: dict[str, float | None]) -> Record:
    known = [value for value in values.values() if value is not None]
    return {"mean": statistics.mean(known) if len(known) == len(values) else None, "values": values}


def _scores(run: PlannedRun) -> dict[str, float | None]:
    scores: dict[str, float | None] = _task(run)["scores"] if run.command == "evaluate" else _results(run)
    return scores


def _task(run: PlannedRun) -> Record:
    result: Record = _results(run)["tasks"][TASK]
    return result


def _results(run: PlannedRun) -> Record:
    result: Record = read_checked(run.results, f"remove it and start the same command again: {run.command} goes on")
    return result


def _curves(runs: dict[str, PlannedRun]) -> Record:
    """By score the steps of the validations, the `values` by seed, and their `mean`."""
    rows = {seed: read_metrics(run.folder / METRICS_FILE) for seed, run in runs.items()}
    result: Record = {}
    for score in STAGE_1.scores:
        steps: list[int] = []
        values: dict[str, list[float]] = {}
        for seed in runs:
            steps, values[seed] = curve(rows[seed], score)
        means = [statistics.mean(points) for points in zip(*values.values(), strict=True)]
        result[score] = {"steps": steps, "mean": means, "values": values}
    return result
