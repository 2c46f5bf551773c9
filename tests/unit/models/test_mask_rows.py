"""No mask of any pass has a row that may attend to nothing, and padding changes no text, in 16 bits either."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from empty_rows import EmptyRows
from plain_generation import plainly_generated, texts_of
from tiny import image_text_batch, image_text_model
from tiny_generation import answer_batch, generation_batch, generative_model

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.ranking import log_likelihoods
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective

BEAMS = GenerationOptions(num_beams=3, max_new_tokens=5)
TOKENS: dict[str, Any] = {"eos_token_id": 1, "pad_token_id": 0}
FAMILIES = ["opt", "t5", "llama", "gpt2"]


def stage1() -> None:
    model = image_text_model().train()
    RepresentationObjective()(model, image_text_batch(), torch.Generator().manual_seed(0)).total.backward()


def captions() -> None:
    start = torch.tensor([[5, 7, 9]] * 2)
    image_text_model().eval().generate(torch.randn(2, 3, 32, 32), start, BEAMS, **TOKENS)


def stage2(family: str) -> None:
    model = generative_model(family).train()
    GenerationObjective()(model, generation_batch(model)).total.backward()


def generation(family: str) -> None:
    model = generative_model(family).eval()
    batch = generation_batch(model)
    assert len(batch.attention_mask.sum(dim=1).unique()) > 1
    for mask, ids in (
        (batch.attention_mask, batch.input_ids),
        (batch.attention_mask.flip(1), batch.input_ids.flip(1)),
    ):
        model.generate(batch.pixel_values, ids, mask, BEAMS, **TOKENS)


def ranking(family: str) -> None:
    model = generative_model(family).eval()
    batch = generation_batch(model)
    log_likelihoods(model, batch.pixel_values, batch.input_ids, batch.attention_mask, [[4, 5, 1], [6, 1]], 2)


def questions(family: str) -> None:
    model = generative_model(family, reads_questions=True).eval()
    batch = answer_batch(model)
    model.generate(
        batch.pixel_values, batch.input_ids, batch.attention_mask, BEAMS, question=batch.question_tokens, **TOKENS
    )


PASSES: dict[str, Callable[[], None]] = {"stage 1": stage1, "captions of stage 1": captions}
PASSES |= {
    f"{work.__name__}, {family}": functools.partial(work, family)
    for work in (stage2, generation, ranking, questions)
    for family in FAMILIES
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_no_row_is_empty(name: str) -> None:
    with EmptyRows() as empty:
        PASSES[name]()
    assert empty.rows == 0
    assert empty.masks > 0, "no mask was seen"


def test_empty_rows_would_be_seen() -> None:
    """In the plain way, padding on the left sees nothing."""
    model = generative_model("llama").eval()
    batch = generation_batch(model)
    with EmptyRows() as empty:
        plainly_generated(model, batch.pixel_values, batch.input_ids, batch.attention_mask, BEAMS, [1], 0)
    assert empty.rows > 0 and empty.masks > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_does_not_depend_on_the_padding_of_others_in_16_bits(family: str, beams: int) -> None:
    model = generative_model(family, dtype="bfloat16").eval()
    batch = generation_batch(model, 6)
    ids, mask = batch.input_ids, batch.attention_mask
    with torch.no_grad():
        seen = model.see(batch.pixel_values)
    options = GenerationOptions(num_beams=beams, max_new_tokens=6)
    together = texts_of(model.generate(seen, ids, mask, options, **TOKENS), [1], 1)
    alone = []
    for row in range(len(mask)):
        real = mask[row]
        one = seen.select(torch.tensor([row]))
        alone += texts_of(model.generate(one, ids[row][real][None], real[real][None], options, **TOKENS), [1], 1)
    different = sum(one != other for one, other in zip(together, alone, strict=True))
    padded = int((~mask).any(dim=1).sum())
    assert len({tuple(row) for row in alone}) > 1 and len(together) == len(alone)
    assert different <= 1 < padded, "one may: on some CPUs rows of a larger batch are rounded otherwise"
