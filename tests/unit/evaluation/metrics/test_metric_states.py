"""The torchmetrics objects give what the plain functions give, with one process and with two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from metric_work import CAPTIONS, QUESTIONS, REFERENCES, TYPES, error_of_the_first, feature_case, metrics_of_share
from processes import run_processes

from blip2_train.evaluation.metrics.coco_caption import score_captions
from blip2_train.evaluation.metrics.recall import retrieval_recall
from blip2_train.evaluation.metrics.vqa_accuracy import vqa_accuracy


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, float]]:
    captions = score_captions(CAPTIONS, REFERENCES, ("bleu_4", "cider")).scores
    answers = vqa_accuracy(QUESTIONS, {key: [QUESTIONS[key], "no", "two"] for key in QUESTIONS}, question_types=TYPES)
    images, texts, image_of_text = feature_case()
    similarity = torch.einsum("bqe,te->btq", images, texts).amax(dim=2)
    by_type = {f"accuracy {kind}": value for kind, value in answers.per_question_type.items()}
    return {
        "captions": {name: value for name, value in captions.items() if value is not None},
        "answers": {"accuracy": answers.overall, **by_type},
        "recall": retrieval_recall(similarity, image_of_text),
    }


@pytest.mark.slow
def test_one_process(expected: dict[str, dict[str, float]]) -> None:
    assert expected["captions"].keys() == {"bleu_4", "cider"} and expected["captions"]["cider"] > 0
    assert 0 < expected["recall"]["image_to_text_r1"] < 100
    results = metrics_of_share()
    for kind, scores in expected.items():
        assert results[kind] == pytest.approx(scores, abs=1e-5), kind


@pytest.mark.slow
def test_two_processes_of_which_one_saw_a_sample_again(expected: dict[str, dict[str, float]], tmp_path: Path) -> None:
    for of_rank in run_processes((2,), metrics_of_share, tmp_path)[2]:
        for kind, scores in expected.items():
            assert of_rank[kind] == pytest.approx(scores, abs=1e-5), kind


@pytest.mark.slow
def test_a_process_without_a_sample_has_the_scores_of_the_other(
    expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    """torchmetrics gathers `(0,)` in float32 for an empty state, beside bytes and integers above 2**53."""
    for of_rank in run_processes((2,), metrics_of_share, tmp_path, True)[2]:
        for kind, scores in expected.items():
            assert of_rank[kind] == pytest.approx(scores, abs=1e-5), kind


@pytest.mark.slow
def test_an_error_of_the_first_process_is_raised_by_all(tmp_path: Path) -> None:
    results = run_processes((1, 2), error_of_the_first, tmp_path)
    assert results == {1: ["process 0 failed"], 2: ["process 0 failed"] * 2}
