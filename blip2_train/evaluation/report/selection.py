"""The choice of examples to show: the best, the worst, and some in between."""

from __future__ import annotations

from dataclasses import dataclass

from blip2_train.data.order import stable_seed
from blip2_train.evaluation.report.content import Example, TaskReport


@dataclass(frozen=True, kw_only=True)
class ChosenExample:
    """An example that is shown."""

    example: Example
    pick: str
    """`best`, `worst`, `between`; `unscored` for examples without a score."""
    rank: int | None
    """1 = best of all scored examples, shown or not; equal scores share a rank."""
    position: int | None
    """As `rank`, but of equal scores one comes after the other."""
    scored: int
    """Number of examples with a score."""


def choose_examples(task: TaskReport, limit: int = 60) -> list[ChosenExample]:
    """At most `limit` examples, best first: a third the best, a third the worst, and the rest evenly spread between.

    Equal scores are ordered by a hash of the id, so that the choice among them does not favour the beginning of the
    file. Examples without a score come last, evenly spread, as many as there is room for. The same examples give
    the same choice.

    Args:
        task: With all its examples.
        limit: Of the examples shown, at least 3.
    """
    if limit < 3:
        raise ValueError(f"limit must be at least 3, got {limit}")
    lower = task.format(task.example_metric).lower_is_better
    scored = [example for example in task.examples if example.score is not None]
    scored.sort(key=lambda example: ((example.score or 0.0) * (1 if lower else -1), stable_seed(ascii(example.id))))
    first: dict[float | None, int] = {}
    for position, example in enumerate(scored):
        first.setdefault(example.score, position)
    count = len(scored)
    end = min(limit // 3, count // 2)
    between = [end + position for position in _spread(count - 2 * end, min(count, limit) - 2 * end)]
    picks = [("best", range(end)), ("between", between), ("worst", range(count - end, count))]
    chosen = [
        ChosenExample(
            example=scored[position],
            pick=pick,
            rank=first[scored[position].score] + 1,
            position=position + 1,
            scored=count,
        )
        for pick, positions in picks
        for position in positions
    ]
    others = [example for example in task.examples if example.score is None]
    room = max(0, limit - len(chosen))
    kept = [others[position] for position in _spread(len(others), min(room, len(others)))]
    return chosen + [ChosenExample(example=e, pick="unscored", rank=None, position=None, scored=count) for e in kept]


def _spread(count: int, size: int) -> list[int]:
    """`size` positions out of `count`, evenly spread."""
    return [(2 * index + 1) * count // (2 * size) for index in range(size)]
