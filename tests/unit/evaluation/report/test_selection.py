from typing import Any

import pytest
from report_cases import captioning, example, image

from blip2_train.evaluation.captioning import CaptioningTask
from blip2_train.evaluation.report.content import Example, TaskReport
from blip2_train.evaluation.report.selection import choose_examples
from blip2_train.evaluation.retrieval import RetrievalTask

IMAGE = image(0)


def task(scores: list[float | None], metric: str = "cider") -> TaskReport:
    examples = [example(n, image=IMAGE, score=score, attention=()) for n, score in enumerate(scores)]
    labels = RetrievalTask.labels if metric == "rank" else CaptioningTask.labels
    return captioning(examples=examples, example_metric=metric, labels=labels)


def chosen(scores: list[float | None], limit: int, metric: str = "cider") -> list[tuple[Any, ...]]:
    return [(c.example.score, c.pick, c.rank) for c in choose_examples(task(scores, metric), limit)]


def test_the_best_the_worst_and_an_even_sample() -> None:
    result = chosen([float(n) for n in range(100)], 10)
    assert [score for score, _, _ in result] == [99, 98, 97, 85, 61, 38, 14, 2, 1, 0]
    assert [pick for _, pick, _ in result] == ["best"] * 3 + ["between"] * 4 + ["worst"] * 3
    assert [rank for _, _, rank in result] == [1, 2, 3, 15, 39, 62, 86, 98, 99, 100]


def test_the_lowest_rank_is_the_best() -> None:
    assert [score for score, _, _ in chosen([5.0, 1.0, 30.0, 2.0], 3, "rank")] == [1, 5, 30]


@pytest.mark.parametrize("count", range(1, 9))
def test_few_examples_are_all_shown_once(count: int) -> None:
    result = chosen([float(n) for n in range(count)], 6)
    assert len({score for score, _, _ in result}) == len(result) == min(6, count)
    picks = [pick for _, pick, _ in result]
    assert picks == sorted(picks, key=["best", "between", "worst"].index)
    assert picks.count("best") == picks.count("worst") == min(2, count // 2)


def test_of_equal_scores_not_only_the_first_of_the_file_are_taken() -> None:
    picked = choose_examples(task([1.0] * 1000), 30)
    assert {c.rank for c in picked} == {1}
    best = [int(c.example.id) for c in picked if c.pick == "best"]
    assert max(best) > 500, "a hash of the id decides"
    reverse = captioning(examples=list(reversed(task([1.0] * 1000).examples)))
    assert [c.example.id for c in choose_examples(reverse, 30)] == [c.example.id for c in picked]


def test_examples_without_a_score_take_the_rest() -> None:
    result = chosen([None, 2.0, None, 1.0, None, None], 4)
    assert result == [(2.0, "best", 1), (1.0, "worst", 2), (None, "unscored", None), (None, "unscored", None)]
    ids = [c.example.id for c in choose_examples(task([None] * 9), 3)]
    assert ids == ["0001", "0004", "0007"]
    assert choose_examples(captioning(examples=list[Example]()), 3) == []


def test_a_limit_below_three_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        choose_examples(task([1.0]), 2)
