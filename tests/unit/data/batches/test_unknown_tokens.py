"""The share of unknown tokens, for every kind of tokenizer that a collator has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_tokenizers import write_language_model
from shard_files import write_tokenizer

from blip2_train.data.batches.language_tokenizer import AnsweringTokenizer, LanguageTokenizer
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.unknown_tokens import UnknownTokens, unknown_tokens
from blip2_train.types import ImageTextSample, QuestionSample

ABOUT: dict[str, Any] = {"pixel_values": torch.zeros(3, 1, 1), "image_id": 1, "sample_id": ""}


def captions(*texts: str) -> list[ImageTextSample]:
    return [ImageTextSample(caption=text, **ABOUT) for text in texts]


def question(text: str, answer: str) -> QuestionSample:
    return QuestionSample(caption=answer, question=text, question_id=1, question_type="", **ABOUT)


def test_special_tokens_do_not_count(tmp_path: Path) -> None:
    """A short caption that is unknown is all unknown: start and end do not count for it."""
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path))
    result = unknown_tokens(tokenizer, captions("a red cat", "猫", "a γάτα dog"))
    assert result == UnknownTokens(unknown=2, tokens=7, example="猫")
    assert str(result) == "28.6 % of 7 tokens are unknown to the tokenizer, the first in '猫'"
    assert str(unknown_tokens(tokenizer, captions("a cat"))) == "0.0 % of 2 tokens are unknown to the tokenizer"


@pytest.mark.parametrize(("foreign", "too_many"), [(0, False), (2, False), (3, True), (10, True)])
def test_more_than_a_fifth_is_too_many(tmp_path: Path, foreign: int, too_many: bool) -> None:
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path))
    result = unknown_tokens(tokenizer, captions(*["γάτα"] * foreign, *["cat"] * (10 - foreign)))
    assert result.share == foreign / 10 and result.too_many == too_many


def test_nothing_is_not_too_many(tmp_path: Path) -> None:
    result = unknown_tokens(load_qformer_tokenizer(write_tokenizer(tmp_path)), [])
    assert result.share == 0.0 and not result.too_many


def test_more_texts_than_are_split_at_once(tmp_path: Path) -> None:
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path))
    result = unknown_tokens(tokenizer, captions(*["a cat"] * 600, "猫 cat"))
    assert (result.unknown, result.tokens, result.example) == (1, 1202, "猫 cat")


@pytest.mark.parametrize(("family", "unknown"), [("opt", False), ("gpt2", False), ("llama_2", False), ("t5", True)])
def test_language_models_know_bytes_or_have_an_unknown_token(tmp_path: Path, family: str, unknown: bool) -> None:
    """Also OPT, whose unknown token is its start and its end."""
    folder = str(write_language_model(family, tmp_path / family))
    tokenizer = LanguageTokenizer(folder, padding_side="right", encoder_decoder=family == "t5")
    assert unknown_tokens(tokenizer, captions("一只猫在屋顶上", "γάτα")).too_many == unknown
    assert unknown_tokens(tokenizer, captions("a photo of a cat")).unknown == 0


def test_of_two_tokenizers_the_one_that_knows_least_counts(tmp_path: Path) -> None:
    """The language model reads question and answer, the Q-Former the question alone."""
    questions = load_qformer_tokenizer(write_tokenizer(tmp_path / "questions"))
    folder = str(write_language_model("opt", tmp_path / "opt"))
    tokenizer = AnsweringTokenizer(folder, questions, padding_side="right", encoder_decoder=False)
    assert unknown_tokens(tokenizer, [question("γάτα ?", "γάτα")]) == UnknownTokens(
        unknown=1, tokens=2, example="γάτα ?"
    )
    assert unknown_tokens(tokenizer, [question("a cat ?", "γάτα")]).unknown == 0
