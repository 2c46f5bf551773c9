"""Answers to held-out questions are collected by question and scored by the official rules."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_generation import answer_batch, generative_model

from blip2_train.config.compose import asset
from blip2_train.data.batches.answer_collate import load_answer_collator
from blip2_train.data.batches.generation_collate import load_decoder_only_collator
from blip2_train.errors import ConfigError
from blip2_train.evaluation.held_out_texts import AnswerEvaluation
from blip2_train.models.configs import LanguageModelConfig, QFormerConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.objectives.generation import AnswerObjective
from blip2_train.optim.config import OptimizerConfig
from blip2_train.training.answering import AnsweringModule
from blip2_train.types import AnswerBatch

OPTIMIZER = OptimizerConfig(
    lr=1e-3, min_lr=0.0, warmup_lr=0.0, warmup_steps=1, steps=2, betas=(0.9, 0.98), weight_decay=0.0
)


def batch_of(references: list[tuple[str, ...]], kinds: list[str]) -> AnswerBatch:
    batch = answer_batch(generative_model(reads_questions=True), len(kinds))
    return dataclasses.replace(batch, references=tuple(references), question_types=tuple(kinds))


def test_accuracy_by_type_a_question_counts_once() -> None:
    people = [("yes",) * 10, ("2",) * 3 + ("3",) * 7, ("red",) * 5 + ("rose",) * 5, ("a cat",) * 10]
    batch = batch_of(people, ["is it", "how many", "what", "what"])
    evaluation = AnswerEvaluation()
    evaluation.add_loss(torch.tensor(6.0), torch.tensor(2.0), 4)
    for _ in range(2):
        evaluation.add_answers(batch, ["yes", "two", "blue", "cat"])
    scores = evaluation.compute()
    # "two" is normalised to 2: 3 of 10 people; "cat" is not "a cat", which is left as it is where all agree
    assert scores["vqa/accuracy"] == pytest.approx(100 * (1 + 0.9 + 0 + 0) / 4)
    assert scores["vqa/accuracy is it"] == pytest.approx(100) and scores["vqa/accuracy what"] == 0
    assert scores["vqa/accuracy how many"] == pytest.approx(90)
    assert scores["pictures"] == 4 and scores["loss_lm"] == 1.5 and scores["lm_accuracy"] == 50


def test_single_answers_are_compared_as_gqa_does() -> None:
    evaluation = AnswerEvaluation()
    evaluation.add_answers(
        batch_of([("2 dogs",), ("red",), ("a cat",)], ["how many", "what", "what"]), ["Two dogs.", "blue", "cat"]
    )
    scores = evaluation.compute()
    assert scores["vqa/accuracy"] == pytest.approx(200 / 3) and scores["vqa/accuracy what"] == 50
    evaluation.add_answers(batch_of([("2 dogs",), ("red",) * 10], ["how many", "what"]), ["2", "red"])
    with pytest.raises(ConfigError, match=r"2 of 3 questions have one answer \(first: 0\), the others several .*: 1"):
        evaluation.compute()


def module(collator: object, **qformer: int) -> AnsweringModule:
    model = GenerativeModel(
        generative_model().vision_config,
        QFormerConfig(weights="random", hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, **qformer),
        LanguageModelConfig(name=asset("demo/opt"), weights="random", end_token="\n"),
        question_to_qformer=True,
    )
    return AnsweringModule(model, AnswerObjective(), OPTIMIZER, collator, seed=0)  # type: ignore[arg-type]


def test_what_cannot_be_read_is_refused() -> None:
    name = asset("demo/opt")
    options = {"name": name, "encoder_decoder": False, "tokenizer": asset("demo/bert"), "end_token": "\n"}
    long = load_answer_collator(**options, max_text_length=40, max_answer_length=8, prompt="Question: {} Answer:")
    with pytest.raises(ConfigError, match="more than the 30 positions of the Q-Former"):
        module(long, max_positions=30)
    longer = load_answer_collator(**options, max_text_length=500, max_answer_length=8, prompt="Question: {} Answer:")
    with pytest.raises(ConfigError, match=r"max_text_length 500 and an answer of .* tokens make"):
        module(longer)
    t5 = load_answer_collator(
        name=asset("demo/t5"), encoder_decoder=True, tokenizer=asset("demo/bert"), max_text_length=20,
        max_answer_length=8, prompt="Question: {} Answer:",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"pass collator\.encoder_decoder=false"):
        module(t5)
    with pytest.raises(ConfigError, match=r"AnswerObjective reads .*AnswerBatch.*; pass collator=answer"):
        module(load_decoder_only_collator(name=name, max_text_length=12, end_token="\n"))
