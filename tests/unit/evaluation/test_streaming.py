"""A text that comes part by part is the text of the whole call, and what lies between the parts is not disturbed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_writer import reader, shown, writer

from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.streaming import parts, resumed

FAMILIES = ["opt", "t5", "gpt2", "bart"]
OPTIONS = [{}, {"repetition_penalty": 1.3}, {"do_sample": True, "seed": 3, "temperature": 2.0, "top_k": 40}]


def joined(stream: Iterator[str], least: int = 2) -> str:
    """The parts, of which there are several, none empty."""
    texts = list(stream)
    assert len(texts) >= least and all(texts), texts
    return "".join(texts)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_captions_and_answers(family: str, options: dict[str, Any]) -> None:
    model, image = writer(family, prompt="a"), shown()[1]
    chosen = {"num_beams": 1, "max_new_tokens": 12, **options}
    assert joined(model.caption(image, stream=True, **chosen)) == model.caption(image, **chosen)[0]
    assert joined(model.answer(image, "what?", stream=True, **chosen)) == model.answer(image, "what?", **chosen)[0]
    del chosen["num_beams"]  # the default of a stream
    assert joined(model.caption([image], stream=True, **chosen)) == model.caption(image, num_beams=1, **chosen)[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_captions_of_stage_1(options: dict[str, Any]) -> None:
    """Word pieces, of which a later one may take away a blank: words come once they are whole."""
    model, image = reader(), shown()[1]
    chosen = {"num_beams": 1, **options}
    assert joined(model.caption(image, stream=True, **chosen)) == model.caption(image, **chosen)[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "t5"])
@pytest.mark.parametrize("options", OPTIONS[::2], ids=str)
def test_conversations(family: str, options: dict[str, Any]) -> None:
    model, image, rounds = writer(family), shown()[0], list[tuple[str, str]]()
    for message in ("what is it?", "is it red?"):
        chosen = {"num_beams": 1, "max_new_tokens": 8, **options}
        whole = model.chat(image, rounds, message, **chosen)
        assert joined(model.chat(image, rounds, message, stream=True, **chosen)) == whole
        rounds.append((message, whole))


def test_a_conversation_ends_where_the_model_would_ask_itself() -> None:
    """Nothing of its question is given, not even the beginning of the form that announces it."""
    model, image = writer("opt"), shown()[0]
    whole = model.chat(image, [], "what?", num_beams=1, max_new_tokens=10)
    words = whole.split()
    middle = words[len(words) // 2]
    form = f"{middle} {{}} Answer:"
    cut = model.chat(image, [], "what?", prompt=form, num_beams=1, max_new_tokens=10)
    assert joined(model.chat(image, [], "what?", prompt=form, stream=True, max_new_tokens=10), least=0) == cut
    until = "Question:"
    texts = ["a cat", "a cat Qu", "a cat Question", "a cat Question: a"]
    given = parts((text.split(until)[0].strip() for text in texts), lambda text: text.partition("Q")[0].rstrip())
    assert list(given) == ["a cat"]


def test_a_model_that_cannot_be_read_once_gives_its_text_at_once() -> None:
    model, image = writer("opt"), shown()[0]
    model.network.reads_prompts_once = False  # type: ignore[union-attr]
    expected = model.caption(image, num_beams=1, max_new_tokens=8)[0]
    texts = list(model.caption(image, stream=True, max_new_tokens=8))
    assert "".join(texts) == expected and len(texts) <= 2  # half a character at its end comes last


def test_between_the_parts_the_state_is_the_readers() -> None:
    model, image = writer("opt"), shown()[0]
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    stream = model.caption(image, stream=True, do_sample=True, seed=1, max_new_tokens=12)
    seen = []
    for _ in itertools.islice(stream, 4):
        assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
        seen.append(torch.rand(1))
    assert torch.equal(torch.cat(seen), expected[: len(seen)])


def test_only_what_is_taken_is_computed() -> None:
    steps = []
    values = resumed((steps.append(n) or n for n in range(9)), torch.inference_mode)  # type: ignore[func-returns-value]
    assert next(values) == 0 and steps == [0]
    model, calls = writer("opt"), []
    model.network.language_model.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    stream = model.caption(shown()[0], stream=True, max_new_tokens=30)
    next(stream)
    assert len(calls) < 10
    list(stream)
    assert len(calls) > 10


def test_what_cannot_be_streamed_is_one_line_at_once() -> None:
    model = writer("opt")

    def refused(call: Any, words: str, error: type[Exception] = ConfigError) -> None:
        with pytest.raises(error, match=words):
            call()

    refused(lambda: model.caption(shown()[0], stream=True, num_beams=3), "num_beams 3 finds its text only at the end")
    refused(lambda: reader().caption(shown()[0], stream=True, num_beams=3), "num_beams 3 finds its text only at")
    refused(lambda: model.chat(shown()[0], [], "what?", stream=True, num_beams=3), "num_beams 3 finds its text only")
    refused(lambda: model.caption(shown(), stream=True), "the text of one image and question, got 4; leave it out")
    refused(lambda: model.answer(shown()[0], ["a?", "b?"], stream=True), "got 2; leave it out, or loop")
    refused(lambda: model.answer(shown()[0], "a?", candidates=["a"], stream=True), "stream changes nothing among")
    refused(lambda: model.caption("gone.png", stream=True), "gone.png is no image", ShardError)
    refused(lambda: model.caption("gone.png", prompt="a " * 90, stream=True), "takes 9. tokens", PromptTooLong)
    several = {"do_sample": True, "num_return_sequences": 2}
    refused(lambda: model.chat(shown()[0], [], "what?", **several), "num_return_sequences 2: a conversation takes one")
    refused(lambda: model.caption(shown()[0], stream=True, **several), "num_return_sequences 2: a stream takes one")


def test_characters_and_words_that_are_not_whole_are_held_back() -> None:
    model = writer("opt")
    tokenizer = model.processor.language_tokenizer
    assert tokenizer is not None
    ids = torch.tensor([tokenizer.text_ids("a caf\u00e9 \u732b \U0001f431 cat")])
    steps = (ids[:, : t + 1] for t in range(ids.shape[1]))
    texts = list(Blip2._parts(model, steps, lambda some: tokenizer.decode(some)[0], None))
    assert "".join(texts) == tokenizer.decode(ids)[0] and not any("\ufffd" in text for text in texts[:-1])
