"""A Q-Former that reads questions: what it reads, what gets a gradient, and where the loss is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_generation import answer_batch, generative_model

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.objectives.generation import AnswerObjective
from blip2_train.types import TextTokens

FAMILIES = ["opt", "t5"]


def question_model(family: str = "opt", reads: bool = True, **vision: Any) -> GenerativeModel:
    return generative_model(family, vision=vision, reads_questions=reads)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(family: str) -> None:
    model = question_model(family, frozen=False).train()
    AnswerObjective()(model, answer_batch(model)).total.backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("language_model.")
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name
        assert frozen or parameter.grad is None or parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name


def test_the_last_layer_has_no_text_half() -> None:
    layers = question_model().qformer.layers
    assert [hasattr(layer, "intermediate") for layer in layers] == [True] * (len(layers) - 1) + [False]
    assert not hasattr(question_model(reads=False), "embeddings")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_at_the_prompt_is_zero(family: str) -> None:
    """With respect to the logits: of every position, by transformers' own head over all of them."""
    model = question_model(family).double()
    batch = answer_batch(model)
    states: list[torch.Tensor] = []

    class Spy(AnswerObjective):
        def states(self, model: Any, batch: Any) -> torch.Tensor:
            states.append(super().states(model, batch).detach().requires_grad_())
            return states[-1]

    fast = Spy()(model, batch).total
    fast.backward()
    weight, _ = model.output_layer()
    logits = (states[0] @ weight.T).detach().requires_grad_()
    slow = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
    prompt = batch.labels == -100
    assert logits.grad is not None and states[0].grad is not None
    assert logits.grad[prompt].abs().max() == 0 if prompt.any() else True
    assert states[0].grad[prompt].abs().sum() == 0 and (logits.grad[~prompt].abs().sum(dim=1) > 0).all()
    torch.testing.assert_close(states[0].grad, logits.grad @ weight)


def test_queries_read_the_question_and_never_its_padding() -> None:
    model = question_model().eval()
    batch = answer_batch(model)
    question = batch.question_tokens
    with torch.no_grad():
        states = model.query_states(batch.pixel_values, question)
        for row in range(len(batch)):
            length = int(question.attention_mask[row].sum())
            alone = TextTokens(
                question.input_ids[row : row + 1, :length], question.attention_mask[row : row + 1, :length]
            )
            one = model.query_states(batch.pixel_values[row : row + 1], alone)
            torch.testing.assert_close(one[0], states[row], rtol=1e-4, atol=1e-5)
        other = TextTokens(question.input_ids.roll(1, 0), question.attention_mask.roll(1, 0))
        assert (model.query_states(batch.pixel_values, other) - states).abs().max() > 1e-2
        assert (model.query_states(batch.pixel_values) - states).abs().max() > 1e-2
        deaf = question_model(reads=False).eval()
        torch.testing.assert_close(
            deaf.query_states(batch.pixel_values, question), deaf.query_states(batch.pixel_values)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_generated_depends_on_the_question_of_the_q_former(family: str) -> None:
    model = question_model(family).eval()
    batch = answer_batch(model, size=6)
    options = GenerationOptions(num_beams=2, max_new_tokens=5)
    other = TextTokens(batch.qformer_input_ids.roll(1, 0), batch.qformer_attention_mask.roll(1, 0))
    generated = [
        model.generate(
            batch.pixel_values, batch.input_ids, batch.attention_mask, options, question, eos_token_id=1, pad_token_id=0
        ).tolist()
        for question in (batch.question_tokens, other, batch.question_tokens)
    ]
    assert generated[0] == generated[2] and generated[0] != generated[1]


def test_a_batch_moves_with_its_questions() -> None:
    moved = answer_batch(question_model()).to("meta")
    assert moved.qformer_input_ids.is_meta and moved.question_tokens.attention_mask.is_meta
    assert moved.questions == ("why?",) * 4
