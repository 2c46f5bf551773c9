"""Captions of stage 1: keys and values that are kept give what reading everything again with `caption_logits` gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import VOCABULARY, image_text_batch, image_text_model
from torch import Tensor

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.decoding import generate_tokens
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import EncodedImages

SEP, PAD = 3, 0
OPTIONS = [
    GenerationOptions(num_beams=1, max_new_tokens=9),
    GenerationOptions(num_beams=3, max_new_tokens=9, min_new_tokens=4),
    GenerationOptions(num_beams=4, max_new_tokens=7, length_penalty=-1.0, repetition_penalty=1.3, min_new_tokens=0),
    GenerationOptions(num_beams=1, max_new_tokens=9, do_sample=True, top_p=0.95, temperature=2.0),
]


@pytest.fixture(scope="module")
def model() -> ImageTextModel:
    actual = image_text_model(seed=3).double().eval()
    with torch.no_grad():
        actual.lm_head.bias[SEP] += 1.0  # so that some captions end
        for layer in actual.qformer.layers:
            if layer.crossattention is not None:  # so that they depend on the image
                layer.crossattention.output.dense.weight.mul_(20.0)
    return actual


PIXELS = image_text_batch(size=4).pixel_values.double()


def starts(model: ImageTextModel, prompt: list[int]) -> Tensor:
    return torch.tensor([[model.decoder_start_token_id, *prompt]] * len(PIXELS))


def slowly(
    model: ImageTextModel, input_ids: Tensor, options: GenerationOptions, uniforms: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The same search; for each token the tower, the image pass and all tokens again, for each row its own image."""
    rows, seen = torch.arange(len(input_ids)), []

    def logits(tokens: Tensor) -> Tensor:
        with torch.no_grad():
            read = torch.cat([input_ids[rows], tokens], dim=1)
            images = model.encode_image(PIXELS[rows])
            logits = model.caption_logits(images, read, torch.ones_like(read, dtype=torch.bool))
            seen.append(logits.unflatten(0, read.shape)[:, -1])
        return seen[-1]

    def step(tokens: Tensor, origin: Tensor | None) -> Tensor:
        nonlocal rows
        rows = rows if origin is None else rows[origin]
        return logits(tokens)

    first = logits(torch.empty(len(input_ids), 0, dtype=torch.int64))
    return generate_tokens(first, step, options, ends=[SEP], pad=PAD, uniforms=uniforms), seen


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [[], [7, 30]], ids=["no prompt", "a prompt"])
@pytest.mark.parametrize("options", OPTIONS, ids=["greedy", "beams", "short beams", "nucleus"])
def test_the_cache_changes_nothing(
    options: GenerationOptions, prompt: list[int], model: ImageTextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, kept = starts(model, prompt), []
    plain = ImageTextModel._next_logits

    def watched(*arguments: Any) -> Any:
        actual = plain(*arguments)
        kept.append(actual[0])
        return actual

    monkeypatch.setattr(ImageTextModel, "_next_logits", watched)
    torch.manual_seed(1)
    actual = model.generate(PIXELS, ids, options, eos_token_id=SEP, pad_token_id=PAD)
    torch.manual_seed(1)
    expected, seen = slowly(model, ids, options)
    assert torch.equal(actual, expected) and len(kept) == len(seen) >= actual.shape[1]
    for ours, theirs in zip(kept, seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert ((actual >= 0) & (actual < VOCABULARY)).all()
    if options.do_sample or options.num_beams > 1:
        assert len({tuple(row.tolist()) for row in actual}) > 1, "the captions depend on the image"


def test_given_draws_are_those_of_one_image(model: ImageTextModel) -> None:
    """N captions of each image, whatever stands beside it."""
    numbers = torch.rand(4, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = GenerationOptions(num_beams=1, max_new_tokens=8, do_sample=True, temperature=2.0)
    whole = model.generate(PIXELS, starts(model, []), options, numbers, eos_token_id=SEP, pad_token_id=PAD)
    assert torch.equal(whole, slowly(model, starts(model, []), options, numbers)[0])
    alone = model.generate(
        PIXELS[2:3], starts(model, [])[:1], options, numbers[2:3], eos_token_id=SEP, pad_token_id=PAD
    )
    for row, other in zip(whole[6:9].tolist(), alone.tolist(), strict=True):
        assert row == other + [PAD] * (len(row) - len(other))


def test_each_image_is_encoded_once(model: ImageTextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = ImageTextModel.encode_image

    def counted(self: ImageTextModel, pixels: Tensor) -> EncodedImages:
        sizes.append(len(pixels))
        return plain(self, pixels)

    monkeypatch.setattr(ImageTextModel, "encode_image", counted)
    model.generate(PIXELS, starts(model, []), OPTIONS[1], eos_token_id=SEP, pad_token_id=PAD)
    assert sizes == [4]


@pytest.mark.slow
def test_what_generation_has_taught_is_written() -> None:
    """After training on ITG alone: `[DEC]` in the place of `[CLS]`, and `[SEP]` at the end, belong together."""
    model, batch = image_text_model(num_queries=8), image_text_batch(size=4)
    texts = torch.tensor(
        [[2, 11, 12, 13, SEP, 0], [2, 21, 12, SEP, 0, 0], [2, 31, 32, 13, 14, SEP], [2, 12, SEP, 0, 0, 0]]
    )
    batch = replace(batch, input_ids=texts, attention_mask=texts != 0, longest_text=6)
    objective = RepresentationObjective(itc_weight=0.0, itm_weight=0.0, label_smoothing=0.0)
    optimizer = torch.optim.Adam([part for part in model.parameters() if part.requires_grad], lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        objective(model.train(), batch, torch.Generator()).total.backward()
        optimizer.step()
    for beams in (1, 3):
        options = GenerationOptions(num_beams=beams, max_new_tokens=8, min_new_tokens=0)
        ids = torch.full((4, 1), model.decoder_start_token_id)
        actual = model.eval().generate(batch.pixel_values, ids, options, eos_token_id=SEP, pad_token_id=PAD)
        assert actual.tolist() == texts[:, 1:].tolist()
