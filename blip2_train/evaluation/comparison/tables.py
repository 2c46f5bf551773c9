"""Runs side by side: a row for each setting in which they differ, and for each score that one of them has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blip2_train.evaluation.comparison.runs import ComparedRun, Score
from blip2_train.evaluation.report.logged_scores import SUM_LABEL

ABSENT = "–"
"""Shown where a run has no such setting or score."""
_OF_THE_LOSS = ("objective.", "global_batch_size", "accumulate")
"""Settings on which it depends what a loss measures: contrast is over a micro-batch."""
_SAME_UNDER_OTHER_NAMES = {"trainer.max_steps": ["steps"]}


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """A setting or a score of all runs."""

    label: str
    values: tuple[str, ...]
    """One for each run."""
    best: frozenset[int] = frozenset()
    """Indices of the runs whose score is the best of them; empty where all are equal, or none is better."""


def differing_settings(runs: Sequence[ComparedRun]) -> list[ComparedRow]:
    """The settings that are not the same in all runs, in the order in which they are written.

    One that only repeats another (`module.seed` follows `seed`, `data.collator.name` `collator.name`) is left out.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: tuple(run.settings.get(key, ABSENT) for run in runs) for key in keys}
    return [
        ComparedRow(label=key, values=row)
        for key, row in values.items()
        if len(set(row)) > 1 and all(values.get(shorter) != row for shorter in _repeated(key))
    ]


def how_many(settings: Sequence[ComparedRow]) -> str:
    """The number of settings that differ, in words.

    Example:
        >>> how_many([]), how_many([ComparedRow(label="seed", values=("1", "2"))])
        ('0 settings differ', '1 setting differs')
    """
    return "1 setting differs" if len(settings) == 1 else f"{len(settings)} settings differ"


def _repeated(key: str) -> list[str]:
    """Settings that one may only repeat."""
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))] + _SAME_UNDER_OTHER_NAMES.get(key, [])


def score_rows(runs: Sequence[ComparedRun]) -> list[ComparedRow]:
    """The scores that a run has; the best of each, where one is better than another in the digits that are shown.

    Scores of other samples are no better or worse: R@1 among 40 images is an easier task than among 256.
    """
    rows = []
    for label in dict.fromkeys(label for run in runs for label in run.scores):
        scores = [run.scores.get(label) for run in runs]
        trained = [
            {key: value for key, value in run.settings.items() if key.startswith(_OF_THE_LOSS)}
            for run, score in zip(runs, scores, strict=True)
            if score is not None
        ]
        texts = [ABSENT if score is None else score.format.text(score.value) for score in scores]
        same = len({score.measured_on for score in scores if score is not None}) == 1
        ranked = {
            index: -score.value if score.format.lower_is_better else score.value
            for index, score in enumerate(scores)
            if score is not None
            and same
            and score.ranked
            and math.isfinite(score.value)
            and _comparable(score, trained)
        }
        best = {texts[index] for index, value in ranked.items() if value == max(ranked.values())}
        equal = len({texts[index] for index in ranked}) < 2  # as they are shown
        shown = frozenset[int]() if equal else frozenset(index for index in ranked if texts[index] in best)
        rows.append(ComparedRow(label=label, values=tuple(texts), best=shown))
    return rows


def _comparable(score: Score, objectives: Sequence[Mapping[str, str]]) -> bool:
    """Whether a loss is the same quantity in runs with these objectives and batches; other scores always are.

    Weights change the sum alone, anything else (label smoothing, how negatives are sampled) also its parts.
    """
    if not score.format.lower_is_better:
        return True
    is_sum = score.format.label == SUM_LABEL
    parts = [{key: value for key, value in own.items() if is_sum or not key.endswith("_weight")} for own in objectives]
    return all(own == parts[0] for own in parts)
