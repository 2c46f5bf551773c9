"""A Q-Former that recomputes its layers in the backward pass gives the same gradients, and keeps less for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import image_text_batch, image_text_model
from tiny_generation import answer_batch, generation_batch, generative_model
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from blip2_train.objectives.generation import AnswerObjective, GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective

DROPOUT = {"dropout": 0.3, "attention_dropout": 0.2}
Case = Callable[[bool], tuple[nn.Module, Any, Any]]
"""Model, batch and objective, by whether the Q-Former recomputes."""


def stage_1(checkpointing: bool, **options: Any) -> tuple[nn.Module, Any, Any]:
    model = image_text_model(gradient_checkpointing=checkpointing, **(DROPOUT | options))
    return model, image_text_batch(6), RepresentationObjective()


def stage_2(checkpointing: bool) -> tuple[nn.Module, Any, Any]:
    model = generative_model("opt", qformer={"gradient_checkpointing": checkpointing, **DROPOUT})
    return model, generation_batch(model), GenerationObjective()


def questions(checkpointing: bool) -> tuple[nn.Module, Any, Any]:
    qformer = {"gradient_checkpointing": checkpointing, **DROPOUT}
    model = generative_model("opt", qformer=qformer, reads_questions=True)
    return model, answer_batch(model), AnswerObjective()


def step(case: Case, checkpointing: bool, bf16: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, in float64 unless under autocast."""
    model, batch, objective = case(checkpointing)
    model.train()
    if not bf16:
        model.double()
        batch.pixel_values = batch.pixel_values.double()
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = objective(model, batch, torch.Generator().manual_seed(1)).total
    torch.rand(7)  # what else may draw before the backward pass
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("case", [stage_1, stage_2, questions])
def test_loss_and_gradients_with_dropout(case: Case) -> None:
    (loss, gradients), (plain, expected) = step(case, True), step(case, False)
    assert torch.equal(loss, plain)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-12, atol=1e-12 * gradient.abs().max().item())


@pytest.mark.parametrize("case", [stage_1, stage_2])
def test_under_autocast(case: Case) -> None:
    (loss, gradients), (plain, expected) = step(case, True, bf16=True), step(case, False, bf16=True)
    assert torch.equal(loss, plain)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("packed", [True, False])
def test_at_most_half_is_kept(packed: bool) -> None:
    kept = {}
    for checkpointing in (True, False):
        model, batch, objective = stage_1(checkpointing, pack_text=packed, num_layers=6, intermediate_size=64)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        storages: dict[int, int] = {}

        def keep(tensor: Tensor, weights: set[int] = weights, storages: dict[int, int] = storages) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = objective(model.train(), batch, torch.Generator().manual_seed(1)).total
        kept[checkpointing] = sum(storages.values())
        del loss
    assert kept[True] <= 0.5 * kept[False]


def test_nothing_is_recomputed_outside_of_training() -> None:
    model, batch, _ = stage_1(True)
    runs: list[int] = []
    layer: Any = model.qformer.encoder.layer[0]
    layer.register_forward_pre_hook(lambda *_: runs.append(1))
    model.train()
    model.encode_text(batch.input_ids, batch.attention_mask).sum().backward()
    assert len(runs) == 2
    model.eval()
    model.encode_text(batch.input_ids, batch.attention_mask).sum().backward()
    assert len(runs) == 3
