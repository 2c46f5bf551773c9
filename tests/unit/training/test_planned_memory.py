"""What a step is planned to take is what a real step of the same model takes."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import image_text_model
from tiny_generation import generative_model
from torch.nn import functional as F

from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.step_memory import Kept, MostAlive
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.training.planned_memory import PlannedStep, autocast, full_batch, plan_step

TEXT = 8


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["stage1", "opt", "t5"])
def test_as_counted_in_a_real_step(kind: str, precision: str) -> None:
    model: Blip2Model = image_text_model() if kind == "stage1" else generative_model(kind)
    objective = RepresentationObjective() if kind == "stage1" else GenerationObjective()
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    plan = plan_step(copy.deepcopy(model).to("meta"), objective, TEXT, precision, on_gpu=False, sizes=(4, 8))
    kept = Kept(model)
    with MostAlive() as alive:
        batch = full_batch(model, objective.batch_type, 6, TEXT)
        with kept.counting(), autocast(precision):
            loss = objective(model, batch, torch.Generator().manual_seed(0)).total
        loss.backward()
    assert plan.kept(6) == pytest.approx(kept.bytes, rel=0.05)  # a mask that is all true is kept in the plan
    assert plan.most(6) == pytest.approx(alive.most, rel=0.1)


def test_a_gpu_keeps_less_of_attention_and_dropout_and_functions_are_put_back() -> None:
    before = F.scaled_dot_product_attention, F.dropout
    model = image_text_model().to("meta")
    model.qformer.dropout.p = 0.1
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    plans = [plan_step(model, RepresentationObjective(), TEXT, "32-true", on_gpu=gpu) for gpu in (False, True)]
    assert plans[1].kept_per_sample < 0.95 * plans[0].kept_per_sample
    assert (F.scaled_dot_product_attention, F.dropout) == before
    assert all(parameter.is_meta and parameter.grad is None for parameter in model.parameters())


def test_the_largest_micro_batch() -> None:
    step = PlannedStep(kept_fixed=10, kept_per_sample=3, most_fixed=20, most_per_sample=4)
    for left in (0, 19, 24, 100, 103):
        largest = step.largest_micro_batch(left)
        assert step.most(largest) <= left or largest == 0
        assert step.most(largest + 1) > left
