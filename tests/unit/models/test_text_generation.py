"""Prompts read once give what transformers' `generate` gives, which reads them for each beam: several hundred cases."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from plain_generation import plainly_generated, texts_of
from tiny_generation import ARCHITECTURES, WORDS, generative_model
from tiny_writer import BART
from torch import Tensor

from blip2_train.models import prompt_cache, text_generation
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.seen_images import SeenImages

ROWS, PAD = 5, 0
_LLAMA = {**ARCHITECTURES["llama"], "num_attention_heads": 4, "num_key_value_heads": 2}
_SIZES: dict[str, Any] = {"vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("opt", ARCHITECTURES["opt"]),
    "t5": ("t5", ARCHITECTURES["t5"]),
    "llama": ("llama", _LLAMA),
    "gpt2": ("gpt2", ARCHITECTURES["gpt2"]),
    "bart": ("t5", {**BART, "vocab_size": WORDS}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sliding window": ("llama", {**_LLAMA, "model_type": "mistral", "sliding_window": 16}),
    "short sliding window": ("llama", {**_LLAMA, "model_type": "mistral", "sliding_window": 6}),
    "positions by the mask": ("gpt2", {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 2, **_SIZES}),
    "inputs of its own": ("llama", {**_LLAMA, "model_type": "phi3", "pad_token_id": 0}),
    "recurrent": (
        "gpt2",
        {
            "model_type": "mamba",
            "hidden_size": 32,
            "state_size": 4,
            "num_hidden_layers": 2,
            "pad_token_id": 0,
            **_SIZES,
        },
    ),
}
PROMPTS = ("equal", "unequal", "none")


@functools.cache
def model_of(family: str) -> tuple[GenerativeModel, SeenImages]:
    kind, architecture = (FAMILIES | OTHERS)[family]
    model = generative_model(kind, architecture=architecture).double().eval()
    if family == "bart":  # or it would generate the same whatever it reads
        with torch.no_grad():
            for layer in model.language_model.model.decoder.layers:  # type: ignore[union-attr, operator]
                layer.encoder_attn.out_proj.weight.mul_(30.0)
    pixels = torch.randn(ROWS, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        return model, model.see(pixels)


def prompts(kind: str) -> tuple[Tensor, Tensor]:
    """Ids and mask `(ROWS, S)`; of unequal ones, the padding stands in front, behind and between."""
    ids = torch.randint(3, WORDS, (ROWS, 0 if kind == "none" else 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids, dtype=torch.bool)
    if kind == "unequal":
        mask[0, :5] = mask[1, 2:] = mask[2, 3] = False
        mask[4] = False  # nothing but the queries
    return ids, mask


@functools.cache
def ends_of(family: str, kind: str = "unequal") -> tuple[tuple[int, ...], ...]:
    """Tokens that are generated now and then, so that rows end at their own times: one, or several."""
    model, seen = model_of(family)
    greedy = GenerationOptions(num_beams=1, max_new_tokens=8, min_new_tokens=0)
    free = plainly_generated(model, seen, *prompts(kind), greedy, [-1], PAD)[:, 1:]
    common = free.flatten().bincount(minlength=WORDS).argsort(descending=True, stable=True).tolist()
    return (common[1],), tuple(common[2:5])


def compare(family: str, kind: str, options: GenerationOptions, ends: tuple[int, ...], **more: Any) -> Tensor:
    model, seen = model_of(family)
    actual = model.generate(seen, *prompts(kind), options, eos_token_id=ends, pad_token_id=PAD, **more)
    expected = plainly_generated(model, seen, *prompts(kind), options, ends, PAD, **more)
    front = int(model.is_encoder_decoder)
    assert texts_of(actual, ends, front) == texts_of(expected, ends, front)
    return actual


def search(beams: int, penalty: float, repeated: float, least: int) -> GenerationOptions:
    return GenerationOptions(
        num_beams=beams, length_penalty=penalty, repetition_penalty=repeated, min_new_tokens=least, max_new_tokens=8
    )


GRID = [
    (search(beams, penalty, repeated, least), several)
    for (beams, penalty), (repeated, least), several in itertools.product(
        [(1, 1.0), (3, -1.0), (3, 1.0), (5, 0.0), (5, 2.0)], [(1.0, 0), (1.4, 4), (1.0, 8)], [False, True]
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_generates_as_transformers(family: str, kind: str) -> None:
    compare(family, kind, search(5, -1.0, 1.4, 2), ends_of(family)[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_generates_as_transformers_in_many_cases(family: str, kind: str) -> None:
    """450 cases in all."""
    lengths = set()
    for options, several in GRID:
        ends = ends_of(family, kind)[several]
        rows = texts_of(compare(family, kind, options, ends), ends, int(model_of(family)[0].is_encoder_decoder))
        lengths |= {len(row) for row in rows}
    assert len(lengths) > 2, "the texts end alike"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "t5", "llama"])
def test_samples_are_those_of_transformers(family: str) -> None:
    """Both by torch's random state, one text of each prompt, and by given numbers, several."""
    for beams, kind in ((1, "unequal"), (1, "equal")):
        options = GenerationOptions(num_beams=beams, max_new_tokens=8, do_sample=True, top_p=0.95, temperature=1.5)
        model, seen = model_of(family)
        ends = ends_of(family)[0]
        torch.manual_seed(3)  # not above: a model that is made draws numbers
        actual = model.generate(seen, *prompts(kind), options, eos_token_id=ends, pad_token_id=PAD)
        torch.manual_seed(3)
        expected = plainly_generated(model, seen, *prompts(kind), options, ends, PAD)
        assert texts_of(actual, ends, 1) == texts_of(expected, ends, 1)
        numbers = torch.rand(ROWS, 3, 8, generator=torch.Generator().manual_seed(4))
        several = compare(family, kind, options, ends, uniforms=numbers)
        assert len(several) == 3 * ROWS and len({tuple(row) for row in several.tolist()}) > ROWS


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("beams", [1, 3])
def test_other_models_generate_as_transformers(family: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where prompts cannot be read once: by transformers' `generate`, prompts of one length at a time."""
    by_transformers: list[int] = []
    plain = text_generation._by_transformers

    def counted(language_model: Any, embeddings: Tensor, *others: Any) -> Tensor:
        by_transformers.append(embeddings.shape[1])
        return plain(language_model, embeddings, *others)

    monkeypatch.setattr(text_generation, "_by_transformers", counted)
    ends = ends_of(family)[1]
    for kind, lengths in (("equal", [11]), ("unequal", [4, 6, 10, 11])):
        by_transformers.clear()
        model, seen = model_of(family)
        ids, mask = prompts(kind)
        actual = model.generate(seen, ids, mask, search(beams, 1.0, 1.4, 2), eos_token_id=ends, pad_token_id=PAD)
        if family == "short sliding window":  # is longer than the shortest prompt
            lengths = lengths[kind == "unequal" :]
        elif family == "sliding window" or (
            family == "positions by the mask" and prompt_cache.reads_once(model.language_model)
        ):
            lengths = []  # transformers 5.17 has a way of its own for the latter
        assert sorted(by_transformers) == lengths
        alone = []
        for row in range(ROWS):  # without any padding
            one = plainly_generated(
                model, seen.select(torch.tensor([row])), ids[row][mask[row]][None],
                mask[row][mask[row]][None], search(beams, 1.0, 1.4, 2), ends, PAD,
            )  # fmt: skip
            alone += texts_of(one, ends, 0)
        assert texts_of(actual, ends, 0) == alone


@pytest.mark.parametrize("family", ["opt", "t5", "llama"])
def test_the_old_way_can_be_chosen(family: str) -> None:
    model, seen = model_of(family)
    tokens = {"eos_token_id": ends_of(family)[0], "pad_token_id": PAD}
    fast = model.generate(seen, *prompts("unequal"), search(3, 1.0, 1.0, 1), **tokens)
    model.reads_prompts_once = False
    try:
        slow = model.generate(seen, *prompts("unequal"), search(3, 1.0, 1.0, 1), **tokens)
    finally:
        del model.reads_prompts_once
    assert texts_of(fast, tokens["eos_token_id"], 1) == texts_of(slow, tokens["eos_token_id"], 1)


@pytest.mark.parametrize("family", ["opt", "t5", "llama"])
def test_what_was_read_stays_as_it_was(family: str) -> None:
    model, seen = model_of(family)
    start = model.text_start()
    read = model.read_prompts(model.soft_prompt(seen), *prompts("unequal"))
    assert read is not None
    special = text_generation.SpecialTokens(ends=ends_of(family)[0], pad=PAD, start=tuple(start))
    options = search(3, 1.0, 1.0, 1)
    with torch.no_grad():
        first, second = (text_generation.continued(read, options, special) for _ in range(2))
    whole = model.generate(seen, *prompts("unequal"), options, eos_token_id=special.ends, pad_token_id=PAD)
    assert first.tolist() == second.tolist() == whole.tolist()


def test_the_language_model_reads_each_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that pass the decoder's first layer: the prompts without their beams, then a token a beam."""
    for family, layer in (("opt", "model.decoder.layers.0"), ("t5", "decoder.block.0")):
        model, seen = model_of(family)
        rows: list[tuple[int, ...]] = []
        hook = model.language_model.get_submodule(layer).register_forward_hook(
            lambda _, inputs, __, rows=rows: rows.append(tuple(inputs[0].shape[:2]))
        )
        model.generate(seen, *prompts("equal"), search(3, 1.0, 1.0, 8), eos_token_id=[-1], pad_token_id=PAD)
        hook.remove()
        assert rows == [(ROWS, 11 if family == "opt" else 1)] + [(3 * ROWS, 1)] * 7


def test_the_name_of_the_cache_is_transformers_own() -> None:
    """With the other of its two names, transformers would warn or fail."""
    model, _ = model_of("llama")
    assert prompt_cache.reads_once(model.language_model) and prompt_cache.takes_positions(model.language_model)
    assert not prompt_cache.reads_once(model_of("inputs of its own")[0].language_model)


@pytest.mark.parametrize("decoder_layers", [1, 3])
def test_a_decoder_of_another_depth_is_read_once(decoder_layers: int) -> None:
    """T5's configuration, asked for the decoder's part, still counts the encoder's layers."""
    architecture = {**ARCHITECTURES["t5"], "num_layers": 2, "num_decoder_layers": decoder_layers}
    model = generative_model("t5", architecture=architecture).double().eval()
    embeddings = torch.randn(2, 5, model.language_model.config.d_model, dtype=torch.float64)
    mask = torch.ones(2, 5, dtype=torch.int64)
    read = prompt_cache.read_prompts(model.language_model, embeddings, mask, (0,))
    assert read is not None
    whole = model.language_model(inputs_embeds=embeddings, decoder_input_ids=torch.zeros(2, 1, dtype=torch.int64))
    torch.testing.assert_close(read.first, whole.logits[:, -1].float())
