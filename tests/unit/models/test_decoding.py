"""The search is that of transformers' `generate`: compared with it on a small GPT-2 that reads everything again."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, GenerationMixin

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.decoding import generate_tokens, stream_tokens

WORDS, PAD = 40, 4
ONE, SEVERAL = [33], [15, 17, 36, 37]
"""Ends that the model below comes to now and then, after different lengths."""


@pytest.fixture(scope="module")
def language_model() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", bos_token_id=1, eos_token_id=1, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.eval()


PROMPT = torch.tensor([[1, 7, 9], [1, 30, 8], [1, 3, 3], [1, 11, 22], [1, 39, 17]])


def ours(
    model: Any, options: GenerationOptions, ends: list[int], prompt: Tensor = PROMPT, search: Any = None, **more: Any
) -> Any:
    """By a step that keeps nothing but the rows' prompts."""
    rows = prompt

    def step(tokens: Tensor, origin: Tensor | None) -> Tensor:
        nonlocal rows
        if origin is not None:
            rows = rows[origin]
        with torch.no_grad():
            logits: Tensor = model(torch.cat([rows, tokens], dim=1)).logits[:, -1]
        return logits

    with torch.no_grad():
        first = model(prompt).logits[:, -1]
    return (search or generate_tokens)(first, step, options, ends=ends, pad=PAD, **more)


def theirs(model: Any, options: GenerationOptions, ends: list[int]) -> Tensor:
    """New tokens by `generate`; embeddings as prompt, so that only new tokens count as repetitions."""
    chosen: dict[str, Any] = {
        "num_beams": options.num_beams, "max_new_tokens": options.max_new_tokens, "do_sample": options.do_sample,
        "min_new_tokens": options.min_new_tokens, "repetition_penalty": options.repetition_penalty,
    }  # fmt: skip
    if options.num_beams > 1:
        chosen["length_penalty"] = options.length_penalty
    if options.do_sample:
        chosen |= {"top_p": options.top_p, "temperature": options.temperature, "top_k": options.top_k}
    chosen["num_return_sequences"] = options.num_return_sequences
    settings = GenerationConfig(**chosen, eos_token_id=ends, pad_token_id=PAD)
    model.generation_config = settings
    embeddings = model.get_input_embeddings()(PROMPT)
    mask = torch.ones_like(PROMPT)
    actual: Tensor = model.generate(inputs_embeds=embeddings, attention_mask=mask, generation_config=settings)
    return actual


GRID = [
    GenerationOptions(
        num_beams=beams, max_new_tokens=9, min_new_tokens=least, length_penalty=penalty, repetition_penalty=repeated
    )
    for beams, penalty in ((1, 1.0), (2, 1.0), (3, -1.0), (3, 0.0), (4, 2.0))
    for least, repeated in ((0, 1.0), (4, 1.5))
]


@pytest.mark.slow
@pytest.mark.parametrize("options", GRID, ids=str)
@pytest.mark.parametrize("ends", [ONE, SEVERAL])
def test_searches(language_model: Any, options: GenerationOptions, ends: list[int]) -> None:
    expected = theirs(language_model, options, ends)
    assert torch.equal(ours(language_model, options, ends), expected)


def test_the_grid_has_ends_at_many_positions(language_model: Any) -> None:
    """Else the comparison above would show little."""
    actual = [ours(language_model, options, SEVERAL) for options in GRID]
    lengths = {int((row != PAD).sum()) for rows in actual for row in rows}
    assert len(lengths) >= 5 and {9} < lengths
    assert len({tuple(row.tolist()) for rows in actual for row in rows}) > 20


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_draws_by_the_random_state(language_model: Any, beams: int) -> None:
    if beams > 1 and "sort(" not in inspect.getsource(GenerationMixin._get_top_k_continuations):
        pytest.skip("this transformers (5.17 does, 5.24 does not) leaves sampled continuations of beams unsorted")
    options = GenerationOptions(num_beams=beams, max_new_tokens=9, do_sample=True, top_p=0.8, temperature=1.5)
    seen = set()
    for seed in range(4):
        torch.manual_seed(seed)
        expected = theirs(language_model, options, ONE)
        torch.manual_seed(seed)
        assert torch.equal(ours(language_model, options, ONE), expected)
        seen.add(tuple(expected.flatten().tolist()))
    assert len(seen) == 4


@pytest.mark.parametrize("options", [
    {"num_beams": 4, "num_return_sequences": 3}, {"num_beams": 2, "num_return_sequences": 2, "length_penalty": -1.0},
    {"num_return_sequences": 3, "do_sample": True}, {"do_sample": True, "top_k": 3, "top_p": 0.9},
    {"num_return_sequences": 2, "do_sample": True, "top_k": 2, "top_p": 1.0, "temperature": 2.0},
], ids=str)  # fmt: skip
def test_several_texts_of_each_and_the_likeliest_tokens_alone(language_model: Any, options: dict[str, Any]) -> None:
    chosen = GenerationOptions(**({"num_beams": 1, "max_new_tokens": 9, "min_new_tokens": 0} | options))
    torch.manual_seed(1)
    expected = theirs(language_model, chosen, SEVERAL)
    torch.manual_seed(1)
    assert torch.equal(ours(language_model, chosen, SEVERAL), expected)
    assert len(expected) == 5 * chosen.num_return_sequences and len({tuple(row.tolist()) for row in expected}) > 4


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.5}, {"do_sample": True, "top_k": 5}], ids=str)
def test_tokens_one_by_one_are_those_of_the_whole(language_model: Any, options: dict[str, Any]) -> None:
    chosen = GenerationOptions(num_beams=1, max_new_tokens=9, **options)
    torch.manual_seed(1)
    whole = ours(language_model, chosen, SEVERAL, PROMPT[1:2])
    torch.manual_seed(1)
    rows = list(ours(language_model, chosen, SEVERAL, PROMPT[1:2], search=stream_tokens))
    assert [row.tolist() for row in rows] == [whole[:, : t + 1].tolist() for t in range(whole.shape[1])]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_does_not_depend_on_its_neighbours(language_model: Any, beams: int) -> None:
    options = GenerationOptions(num_beams=beams, max_new_tokens=9, min_new_tokens=0)
    whole = ours(language_model, options, SEVERAL)
    for row, prompt in zip(whole, PROMPT, strict=True):
        alone = ours(language_model, options, SEVERAL, prompt[None])[0]
        assert row.tolist() == alone.tolist() + [PAD] * (len(row) - len(alone))


def test_given_draws(language_model: Any) -> None:
    """N texts of each, text by text, each by its own numbers."""
    options = GenerationOptions(num_beams=1, max_new_tokens=6, do_sample=True, top_p=0.9)
    numbers = torch.rand(5, 3, 6, generator=torch.Generator().manual_seed(3))
    whole = ours(language_model, options, ONE, uniforms=numbers)
    assert whole.shape[0] == 15 and len({tuple(row.tolist()) for row in whole}) > 8
    one = ours(language_model, options, ONE, PROMPT[3:4], uniforms=numbers[3:4, 1:2])[0]
    assert whole[10].tolist() == one.tolist() + [PAD] * (whole.shape[1] - len(one))
