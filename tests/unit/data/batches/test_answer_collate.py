"""What Q-Former and language model read of a question, and what is learnt, on the real tokenizers of the demo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blip2_train.config.compose import asset
from blip2_train.data.batches.answer_collate import AnswerCollator, load_answer_collator
from blip2_train.errors import ConfigError
from blip2_train.types import QuestionSample


def sample(question: str, answer: str) -> QuestionSample:
    return QuestionSample(
        pixel_values=torch.zeros(3, 4, 4),
        caption=answer,
        image_id=7,
        sample_id="a/0#0",
        references=(answer,) * 10,
        question=question,
        question_id=1007,
        question_type="what is",
    )


def collator(family: str, **options: Any) -> AnswerCollator:
    values: dict[str, Any] = {
        "name": asset(f"demo/{family}"),
        "encoder_decoder": family == "t5",
        "tokenizer": asset("demo/bert"),
        "max_text_length": 24,
        "max_answer_length": 5,
        "prompt": "Question: {} Answer:",
        "end_token": "\n" if family == "opt" else None,
    }
    return load_answer_collator(**values | options)


QUESTIONS = [
    sample("what is above the red fox?", "fire engine"),
    sample("how many foxes are there?", "2"),
    sample("", "yes"),
]


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_labels_decode_to_the_answer_and_nothing_else_is_learnt(family: str) -> None:
    made = collator(family)
    batch, decoder = made(QUESTIONS), made.tokenizer.tokenizer
    for row, item in enumerate(QUESTIONS):
        learnt = batch.labels[row][batch.labels[row] != -100]
        assert learnt[-1] == made.tokenizer.end_id and (learnt == made.tokenizer.end_id).sum() == 1
        assert decoder.decode(learnt[:-1]).strip() == item.caption
        read = batch.input_ids[row][batch.attention_mask[row]]
        if family == "opt":
            prompt = read[: len(read) - len(learnt)].tolist()
            assert torch.equal(read[len(prompt) :], learnt)
        else:
            prompt = read.tolist()
        assert prompt == made.tokenizer.prompt_ids(
            made.question_prompt(item.question)
        )  # as it is read before an answer is generated
        assert batch.qformer_attention_mask[row].sum() == len(
            made.tokenizer.question_tokenizer(item.question).input_ids
        )
    assert "".join(decoder.decode(made.tokenizer.text_ids(made.question_prompt("who?")))) == "Question: who? Answer:"
    assert batch.questions == tuple(item.question for item in QUESTIONS) and batch.question_ids == (1007,) * 3
    assert batch.references[0] == ("fire engine",) * 10 and batch.question_types == ("what is",) * 3


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_long_question_loses_its_last_words_a_long_answer_its_last_tokens(family: str) -> None:
    made = collator(family)
    question = "what is above " + "the red fox " * 30
    batch = made([sample(question.strip(), "fire engine " * 20)])
    text = made.question_prompt(question.strip())
    assert text.startswith("Question: what is above the red fox") and text.endswith(" Answer:")
    assert (
        len(made.tokenizer.prompt_ids(text))
        <= 24
        < len(made.tokenizer.prompt_ids(text.replace(" Answer:", " the Answer:")))
    )
    learnt = batch.labels[0][batch.labels[0] != -100]
    assert len(learnt) == 5 and learnt[-1] == made.tokenizer.end_id
    assert batch.qformer_input_ids.shape == (1, 24)
    assert batch.qformer_input_ids[0, -1] == made.tokenizer.question_tokenizer.sep_token_id


def test_impossible_lengths_and_forms_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no \{\} for the question"):
        collator("opt", prompt="Answer:")
    with pytest.raises(ConfigError, match="leaves no room for a question"):
        collator("opt", max_text_length=4)
    with pytest.raises(ConfigError, match="max_answer_length must be at least 2"):
        collator("opt", max_answer_length=1)


def test_the_fingerprint_knows_what_changes_the_samples() -> None:
    prints = [
        collator("opt").fingerprint(),
        collator("opt", prompt="Q: {} A:").fingerprint(),
        collator("opt", max_answer_length=6).fingerprint(),
    ]
    assert prints[0] == collator("opt").fingerprint() and len({str(item) for item in prints}) == 3
