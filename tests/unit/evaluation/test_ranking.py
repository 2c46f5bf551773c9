"""The likeliest candidate, against a loop that reads image, question and candidate anew each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_writer import QUESTIONS, shown, writer

from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.data.official.candidates import read_candidates
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.generation import Prompt
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.question_answering import AnsweringTask
from blip2_train.evaluation.ranking import rank_texts
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.ranking import log_likelihoods

CANDIDATES = ["yes", "no", "2", "a red apple", "the red fox and the cat", "cat", "on the left of the green car", "red"]


def naive(model: Blip2, image: torch.Tensor, question: str, candidate: str) -> list[float]:
    """Log-likelihoods of the candidate's tokens and of the end, from the loss of training, token by token."""
    network, tokenizer = model.network, model.processor.language_tokenizer
    assert isinstance(network, GenerativeModel) and tokenizer is not None
    if network.is_encoder_decoder:
        read, labelled = tokenizer.prompt_ids(question), tokenizer.finished_ids(candidate, 99)
    else:
        read, front = tokenizer.training_text(question, candidate, 99)
        labelled = [-100] * front + read[front:]
    labels = torch.tensor([labelled])
    with torch.no_grad():
        states = network.predicting_states(
            image[None], torch.tensor([read]), torch.ones(1, len(read), dtype=torch.bool), labels
        )
        weight, bias = network.output_layer()
        chances = torch.nn.functional.linear(states, weight, bias).log_softmax(dim=-1)[0]
    return [float(chances[position, token]) for position, token in enumerate(labelled) if token != -100]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "t5", "gpt2", "llama", "bart"])
def test_scores_are_those_of_reading_everything_again(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2_train.models.ranking.AT_ONCE", 3)
    model = writer(family)
    prompts = [f"Question: {question} Answer:" for question in QUESTIONS]
    pixels = model.processor.images(shown())
    parts = [
        [naive(model, image, prompt, text) for text in CANDIDATES]
        for image, prompt in zip(pixels, prompts, strict=True)
    ]
    expected = torch.tensor([[sum(tokens) for tokens in row] for row in parts])
    assert model.processor.language_tokenizer is not None and isinstance(model.network, GenerativeModel)
    texts = model.processor.language_tokenizer.continuations(prompts[1], CANDIDATES)
    read = (pixels, *model.processor.prompts(prompts), texts)
    torch.testing.assert_close(log_likelihoods(model.network, *read, shortlist=99), expected, rtol=1e-4, atol=1e-4)
    best = [CANDIDATES[index] for index in expected.argmax(dim=1)]
    assert model.answer(shown(), QUESTIONS, prompt="Question: {} Answer:", candidates=CANDIDATES) == best

    some = log_likelihoods(model.network, *read, shortlist=3)
    for row, tokens, whole in zip(some, parts, expected, strict=True):
        opening = torch.tensor([first for first, *_ in tokens])
        kept = sorted(opening.argsort(descending=True, stable=True)[:3].tolist())
        assert row.isfinite().nonzero().flatten().tolist() == kept
        torch.testing.assert_close(row[kept], whole[kept], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["opt", "t5", "bart"])
def test_a_prompt_that_cannot_be_kept_is_read_again_with_each_candidate(family: str) -> None:
    model = writer(family)
    network, tokenizer = model.network.double(), model.processor.language_tokenizer
    assert isinstance(network, GenerativeModel) and tokenizer is not None
    ids, mask = model.processor.prompts([f"Question: {question} Answer:" for question in QUESTIONS])
    texts = tokenizer.continuations("Answer:", CANDIDATES)
    start = tokenizer.generation_tokens["decoder_start"]
    scores = []
    for once in (True, False):
        network.reads_prompts_once = once
        pixels = model.processor.images(shown()).double()
        scores.append(log_likelihoods(network, pixels, ids, mask, texts, 5, decoder_start=start))
    assert scores[0].isfinite().sum() == 5 * len(QUESTIONS)
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_the_cases_distinguish_the_candidates() -> None:
    for family in ("opt", "t5"):
        model = writer(family)
        answers = model.answer(shown() * 2, QUESTIONS * 2, candidates=CANDIDATES, batch_size=3)
        assert answers[:4] == answers[4:] and model.answer([], [], candidates=CANDIDATES) == []
        alone = [model.answer(p, q, candidates=CANDIDATES)[0] for p, q in zip(shown(), QUESTIONS, strict=True)]
        assert alone == answers[:4]


def test_what_cannot_be_ranked_is_refused() -> None:
    model = writer("opt")
    for candidates in ([], ["yes", " "], "yes"):
        with pytest.raises(ConfigError, match="candidates must be a list of answers"):
            model.answer(shown(), "what?", candidates=candidates)
    with pytest.raises(ConfigError, match=r"candidate '\\udce9' is not Unicode"):
        model.answer(shown(), "what?", candidates=["yes", "\udce9"])
    with pytest.raises(ConfigError, match="num_beams changes nothing among candidates"):
        model.answer(shown(), "what?", candidates=["yes"], num_beams=3)
    with pytest.raises(ConfigError, match="shortlist must be at least 1, got 0"):
        model.answer(shown(), "what?", candidates=["yes"], shortlist=0)
    with pytest.raises(ConfigError, match=r"takes .* tokens, but beside 4 queries and 7. new tokens"):
        rank_texts(model.network, model.processor, ["none"], [Prompt("what?", "")], ["a " * 70], 1, 1)  # type: ignore[arg-type]


def test_a_task_ranks_and_records_it(tmp_path: Path) -> None:
    image, model = shown(1)[0], writer("t5")
    image.save(tmp_path / "a.png")
    question = VisualQuestion(
        question_id=7, image_id="a.png", image="a.png", question="what?", answers=("cat",), question_type="",
        answer_type="",
    )  # fmt: skip
    task = AnsweringTask("vqa", "VQA", [question], tmp_path, metric="exact", candidates=CANDIDATES, shortlist=5)
    rows = task.predict(model, 0, model.processor.images([image]))
    expected = model.answer(image, "what?", candidates=CANDIDATES, shortlist=5)[0]
    assert rows == [{"question_id": 7, "answer": expected}]
    generation = task.settings()["generation"]
    assert generation["shortlist"] == 5 and "num_beams" not in generation
    other = AnsweringTask("vqa", "VQA", [question], tmp_path, candidates=CANDIDATES[1:], shortlist=5)
    assert other.settings()["generation"]["candidates"] != generation["candidates"]


def test_a_question_with_half_a_character_is_put_without_it(tmp_path: Path) -> None:
    image, model = shown(1)[0], writer("t5")
    rows = []
    for question in ("what \udc80is it?", "what is it?"):
        question = VisualQuestion(
            question_id=7, image_id="a.png", image="a.png", question=question, answers=("cat",), question_type="",
            answer_type="",
        )  # fmt: skip
        task = AnsweringTask("vqa", "VQA", [question], tmp_path, metric="exact", candidates=CANDIDATES, shortlist=5)
        rows.append(task.predict(model, 0, model.processor.images([image])))
    assert rows[0] == rows[1]


def test_answer_lists(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" yes\n\nno \ntwo dogs\nyes\n2\n")
    (tmp_path / "a.json").write_text(json.dumps(["yes", "no", "two dogs", "yes ", "2"]))
    assert read_candidates(tmp_path / "a.txt") == read_candidates(tmp_path / "a.json") == ["yes", "no", "two dogs", "2"]
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "wrong.json").write_text('{"yes": 1}')
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for name, words in {
        "empty.txt": "holds no answer",
        "wrong.json": r"is not of the form \[",
        "latin.txt": "is no UTF-8 text",
        "none.txt": "does not exist",
        "none.json": "does not exist",
    }.items():
        with pytest.raises(ShardError, match=words):
            read_candidates(tmp_path / name)
