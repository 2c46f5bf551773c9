"""Answers to a set of questions: which accuracies are printed, and which is the headline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2_train.cli.score_tables import print_chosen_scores
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.evaluation.question_answering import AnsweringTask
from blip2_train.evaluation.report.content import TaskReport, TaskSettings
from blip2_train.evaluation.report.score_table import score_table


def task(metric: Any, answers: list[tuple[str, ...]]) -> AnsweringTask:
    questions = [
        VisualQuestion(
            question_id=number, image_id="a.png", image="a.png", question="what?", answers=known,
            question_type="query", answer_type="obj",
        )
        for number, known in enumerate(answers)
    ]  # fmt: skip
    return AnsweringTask("gqa", "GQA", questions, Path(), metric=metric)


def rows(*answers: str) -> list[dict[str, Any]]:
    return [{"question_id": number, "answer": answer} for number, answer in enumerate(answers)]


def test_gqa_prints_the_released_and_the_official_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    exact = task("exact", [("table",), ("yes",), ("two",), ("cat",)])
    scored = exact.score(rows("The table.", "yes", "2", "dog"))
    assert scored.scores["accuracy"] == 75.0, "normalised: the headline, as published"
    assert scored.scores["plain/accuracy"] == 25.0, "as GQA's own program compares"
    assert scored.scores["answer type obj/accuracy"] == 75.0 and scored.per_sample["0"] == 100.0
    assert exact.headline == "accuracy" and exact.closing == ("accuracy", "plain/accuracy")
    settings = TaskSettings(
        checkpoint="a", checkpoint_fingerprint="b", data_fingerprints={}, prompt="", decoding={}, versions={}
    )
    report = TaskReport(
        name="gqa",
        title=exact.title,
        kind="vqa",
        scores=scored.scores,
        settings=settings,
        labels=exact.labels,
        headline=exact.headline,
    )
    assert [part for part, _ in score_table(report).rows][:2] == ["all", "plain"]
    print_chosen_scores([report], {"gqa": exact.closing})
    printed = capsys.readouterr().out
    assert "75.0" in printed and "plain, accuracy" in printed and "25.0" in printed


def test_vqa_has_one_accuracy() -> None:
    vqa = task("vqa", [("yes",) * 10])
    scored = vqa.score(rows("Yes"))
    assert scored.scores["accuracy"] == 100.0 and "plain/accuracy" not in scored.scores
    assert vqa.closing == ("accuracy",)
