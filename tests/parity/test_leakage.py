"""What can reach what, told by gradients: a gradient that is exactly zero is a path that does not exist."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from reference_cases import double_model, global_batch
from torch import Tensor

from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective

BATCH = global_batch(4, "distinct")


def text_gradient(output: Tensor, embedded: Tensor, real: Tensor) -> Tensor:
    """`(rows, T)`: whether each text position reaches `output`; those that were never embedded do not."""
    (gradient,) = torch.autograd.grad(output.square().sum(), embedded, retain_graph=True)
    reaches = gradient.abs().amax(dim=-1) > 0
    return reaches if embedded.ndim == 3 else torch.zeros_like(real).masked_scatter(real, reaches)


@pytest.fixture
def embedded() -> list[Tensor]:
    return []


@pytest.fixture(params=[True, False], ids=["packed", "padded"])
def model(embedded: list[Tensor], request: pytest.FixtureRequest) -> ImageTextModel:
    model = double_model()
    model.qformer_config = dataclasses.replace(model.qformer_config, pack_text=request.param)
    model.embeddings.register_forward_hook(lambda *call: embedded.append(call[2]))
    return model


def test_a_caption_is_predicted_from_its_past_and_its_own_image(model: ImageTextModel, embedded: list[Tensor]) -> None:
    pixels = BATCH.pixel_values.clone().requires_grad_()
    features = model.vision_model(pixels).requires_grad_()
    logits = model.caption_logits(model.encode_patches(features), BATCH.input_ids, BATCH.attention_mask)
    length = BATCH.attention_mask.sum(dim=1)
    for row in range(4):
        own = logits.split(length.tolist())[row]
        for position in range(int(length[row])):
            reached = text_gradient(own[position], embedded[-1], BATCH.attention_mask)
            expected = torch.zeros_like(reached)
            expected[row, : position + 1] = True
            assert torch.equal(reached, expected)
        (gradient,) = torch.autograd.grad(own[1].square().sum(), features, retain_graph=True)
        assert gradient[row].any(dim=1).all()
        assert not gradient[torch.arange(4) != row].any()


def test_a_text_feature_sees_its_real_tokens_only(model: ImageTextModel, embedded: list[Tensor]) -> None:
    features = model.encode_text(BATCH.input_ids, BATCH.attention_mask)
    for row in range(4):
        reached = text_gradient(features[row] * torch.arange(1.0, 9.0), embedded[-1], BATCH.attention_mask)
        expected = torch.zeros_like(reached)
        expected[row] = BATCH.attention_mask[row]
        assert torch.equal(reached, expected)


def test_matching_sees_all_real_tokens_and_all_patches_of_the_pair(
    model: ImageTextModel, embedded: list[Tensor]
) -> None:
    features = model.vision_model(BATCH.pixel_values).requires_grad_()
    image_kv = model.project_image(features)
    texts = torch.tensor([0, 1, 2, 3, 1, 2, 3, 0])
    logits = model.match([image_kv.repeat(2)], BATCH.input_ids[texts], BATCH.attention_mask[texts])
    for row in range(8):
        reached = text_gradient(logits[row], embedded[-1], BATCH.attention_mask[texts])
        expected = torch.zeros_like(reached)
        expected[row] = BATCH.attention_mask[texts][row]
        assert torch.equal(reached, expected)
        (gradient,) = torch.autograd.grad(logits[row].square().sum(), features, retain_graph=True)
        assert gradient[row % 4].any(dim=1).all()
        assert not gradient[torch.arange(4) != row % 4].any()


def test_text_never_reaches_the_states_of_the_image_pass(model: ImageTextModel) -> None:
    """ITC and ITG read the images through these states and their cache; both are functions of the images alone."""
    images = model.encode_image(BATCH.pixel_values)
    outputs = [images.query_states, images.image_features, *(tensor for pair in images.query_cache for tensor in pair)]
    total = sum(output.square().sum() for output in outputs)
    of_text = [*model.embeddings.parameters()]
    for layer in model.qformer.encoder.layer:
        of_text += [*layer.intermediate.parameters(), *layer.output.parameters()]
    assert all(g is None for g in torch.autograd.grad(total, of_text, allow_unused=True, retain_graph=True))
    (gradient,) = torch.autograd.grad(total, [model.query_tokens])
    assert gradient.any()


def test_padding_changes_no_loss_and_no_gradient(model: ImageTextModel) -> None:
    """Neither what stands at padded positions, nor how many there are."""

    def run(batch):  # type: ignore[no-untyped-def]
        model.zero_grad()
        output = RepresentationObjective(gather="full")(model, batch, torch.Generator().manual_seed(0))
        output.total.backward()
        return [output.total.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    expected = run(BATCH)
    garbage = torch.where(BATCH.attention_mask, BATCH.input_ids, 9)
    untrimmed = dataclasses.replace(BATCH, longest_text=BATCH.input_ids.shape[1])
    for changed in (dataclasses.replace(BATCH, input_ids=garbage), untrimmed):
        for actual, value in zip(run(changed), expected, strict=True):
            torch.testing.assert_close(actual, value, rtol=1e-11, atol=1e-13)
