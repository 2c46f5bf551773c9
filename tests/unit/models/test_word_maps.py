"""Maps of words come from the weights and gradients of the pass that matches, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import image_text_batch, image_text_model
from torch import Tensor

from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.word_maps import explicit_match, word_maps

TOWERS: dict[str, dict[str, Any]] = {
    "class token": {},
    "none": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
}


def case(tower: str = "class token") -> tuple[ImageTextModel, tuple[Tensor, Tensor, Tensor]]:
    base = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    model = image_text_model(vision={"overrides": base | TOWERS[tower]}).eval().double()
    batch = image_text_batch(3)
    return model, (batch.pixel_values.double(), batch.input_ids, batch.attention_mask)


@pytest.mark.parametrize("tower", TOWERS)
def test_the_explicit_pass_is_that_of_matching(tower: str) -> None:
    model, (pixels, ids, mask) = case(tower)
    logits, read, looked = explicit_match(model, pixels, ids, mask)
    with torch.no_grad():
        expected = model.match([model.encode_image(pixels).image_kv], ids, mask)
    torch.testing.assert_close(logits.detach(), expected)
    for weights in (*read, *looked):
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    assert len(read) == len(looked) == 2


def test_a_map_is_the_sum_of_products_written_out() -> None:
    model, (pixels, ids, mask) = case()
    logits, *weights = explicit_match(model, pixels, ids, mask)
    slopes = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), [*weights[0], *weights[1]])
    read, looked = ([layer.detach() for layer in kind] for kind in weights)
    pair, token, patch, queries = 1, 2, 7, model.query_tokens.shape[1]
    expected = 0.0
    for layer in range(2):
        own, cross = read[layer][pair] * slopes[layer][pair], looked[layer][pair] * slopes[2 + layer][pair]
        for query in range(queries):
            reads = sum(max(0.0, float(head[query, queries + token])) for head in own) / len(own)
            looks = sum(max(0.0, float(head[query, 1 + patch])) for head in cross) / len(cross)  # 0: class token
            expected += reads * looks
    maps = word_maps(model, pixels, ids, mask)
    assert maps.shape == (3, ids.shape[1], 4, 4) and expected > 0
    assert maps[pair, token, patch // 4, patch % 4] == pytest.approx(expected)


def test_padding_has_no_map_and_changes_none() -> None:
    model, (pixels, ids, mask) = case()
    with torch.inference_mode():  # as in use
        maps = word_maps(model, pixels, ids, mask)
    assert maps[~mask].abs().max() == 0 and maps[mask].amax(dim=(1, 2)).min() > 0
    longest = int(mask.sum(dim=1).max())
    torch.testing.assert_close(word_maps(model, pixels, ids[:, :longest], mask[:, :longest]), maps[:, :longest])
    assert all(parameter.grad is None for parameter in model.parameters())
