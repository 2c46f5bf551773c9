"""Texts drawn by given numbers: right shares, and nothing of one image in those of another."""

from __future__ import annotations

import pytest
import torch
from tiny_generation import generative_model

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.nucleus_sampling import NucleusSampling


def drawn(scores: list[float], uniforms: torch.Tensor, **options: float) -> list[int]:
    rows = torch.tensor([scores]).expand(len(uniforms), -1)
    left = NucleusSampling(uniforms[:, None], **options)(None, rows)
    assert ((left == 0).sum(dim=1) == 1).all() and left.isneginf().sum() == left.numel() - len(left)
    return left.argmax(dim=1).tolist()


def test_shares_are_those_of_the_nucleus() -> None:
    evenly = (torch.arange(1000) + 0.5) / 1000
    scores = torch.tensor([0.1, 0.5, 0.25, 0.15]).log().tolist()
    everything = drawn(scores, evenly)
    assert [everything.count(token) for token in range(4)] == [100, 500, 250, 150]
    nucleus = drawn(scores, evenly, top_p=0.8)  # 0.5 + 0.25 are not yet 0.8, with 0.15 they are
    assert [nucleus.count(token) for token in range(4)] == [0, 556, 277, 167]
    cold = drawn(scores, evenly, temperature=0.5)
    assert cold.count(1) == pytest.approx(1000 * 0.25 / (0.01 + 0.25 + 0.0625 + 0.0225), abs=1)
    assert drawn(scores, torch.tensor([0.0, 1 - 2**-24]), top_p=0.01) == [1, 1]


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_image_has_the_same_texts_in_any_company(family: str) -> None:
    model = generative_model(family).eval()
    images, uniforms = torch.randn(3, 3, 32, 32), torch.rand(3, 4, 7)
    prompts = torch.full((3, 2), 5)
    options = GenerationOptions(num_beams=1, do_sample=True, top_p=0.95, temperature=1.5, max_new_tokens=7)

    def say(rows: list[int], numbers: torch.Tensor) -> list[list[int]]:
        generated = model.generate(
            images[rows],
            prompts[rows],
            torch.ones(len(rows), 2, dtype=torch.bool),
            options,
            uniforms=numbers,
            eos_token_id=2,
            pad_token_id=1,
        )
        return [row + [1] * (8 - len(row)) for row in generated.tolist()]

    together = say([0, 1, 2], uniforms)
    assert len(together) == 12 and len(set(map(tuple, together))) > 6
    torch.manual_seed(1)  # torch's own state has no part in it
    for one in range(3):
        assert say([one], uniforms[[one]]) == together[4 * one : 4 * one + 4]
    swapped = say([2, 0], uniforms[[2, 0]])
    assert swapped == together[8:] + together[:4]
    assert say([0], uniforms[[1]]) != together[:4]
