"""Texts in one row without padding give what padded texts give, and every index of the row is where it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from reference_cases import global_batch, uneven_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.packing import pack
from blip2_train.objectives.representation import RepresentationObjective

MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("num_queries", [0, 2])
def test_where_everything_goes(num_queries: int) -> None:
    packing = pack(MASK, num_queries)
    text = torch.arange(12.0).view(3, 4, 1) + 100
    queries = torch.arange(3.0 * num_queries).view(3, num_queries, 1)
    row = packing.join(queries, packing.select(text))
    assert row[-7:].flatten().tolist() == [100, 101, 104, 105, 106, 107, 108]
    expected = torch.cat([queries, text * MASK[:, :, None]], dim=1)
    assert torch.equal(packing.pad(row), expected), "queries in front of the text, zeros as padding"
    assert torch.equal(packing.unpad(packing.pad(row)), row)
    assert all(torch.equal(*pair) for pair in zip(packing.split(row), (queries, packing.select(text)), strict=True))
    assert torch.equal(packing.leading(row), expected[:, : num_queries or 1])


def test_positions_that_were_padded_take_no_gradient() -> None:
    packing, text = pack(MASK), torch.randn(3, 4, 5, requires_grad=True)
    packing.pad(packing.select(text)).sum().backward()
    assert text.grad is not None and torch.equal(text.grad, MASK[:, :, None].expand(3, 4, 5).float())


def test_without_values_every_position_counts() -> None:
    """So that a step can be counted on tensors that hold nothing."""
    for mask in (MASK.to("meta"), FakeTensorMode().from_tensor(MASK)):
        assert pack(mask, 2).tokens.shape == (12,)


def run(packed: bool, **options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of one step in float64 without dropout."""
    model = uneven_model().double().train()
    model.qformer_config = dataclasses.replace(model.qformer_config, pack_text=packed)
    output = RepresentationObjective(**options)(model, global_batch(6, "repeated"), torch.Generator().manual_seed(7))
    output.total.backward()
    return output.terms, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{}, {"gather": "full", "negatives": "floor", "mask_same_image": True}])
def test_a_step_equals_its_padded_twin(options: dict[str, Any]) -> None:
    (losses, gradients), (padded, padded_gradients) = run(True, **options), run(False, **options)
    for name, loss in padded.items():
        torch.testing.assert_close(losses[name], loss, rtol=1e-12, atol=0)
    assert gradients.keys() == padded_gradients.keys()
    largest = max(gradient.abs().max() for gradient in padded_gradients.values())
    for name, gradient in padded_gradients.items():
        scale = max(gradient.abs().max(), 1e-3 * largest)
        assert (gradients[name] - gradient).abs().max() <= 1e-12 * scale, name


def test_no_layer_sees_padding() -> None:
    model: ImageTextModel = uneven_model()
    batch, seen = global_batch(4, "distinct"), []
    model.qformer.encoder.layer[1].intermediate.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    model.lm_head.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    batch = dataclasses.replace(batch, pixel_values=batch.pixel_values.float())
    RepresentationObjective()(model, batch, torch.Generator().manual_seed(0))
    real = int(batch.attention_mask.sum())
    text, matched, generation, head = seen
    assert text == real and generation == head == real - 4, "the last token of a text predicts nothing"
    assert 2 * real < matched < 3 * batch.attention_mask.numel()
