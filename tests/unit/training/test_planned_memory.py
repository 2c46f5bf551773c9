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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *[(kind, precision) for kind in ("stage1", "opt", "t5") for precision in ("32-true", "bf16-mixed")],
        ("stage1 from stored features", "32-true"),
    ],
)
def test_as_counted_in_a_real_step(kind: str, precision: str) -> None:
    stage1 = kind.startswith("stage1")
    model: Blip2Model = image_text_model() if stage1 else generative_model(kind)
    objective = RepresentationObjective() if stage1 else GenerationObjective()
    model.train()
    if "features" in kind:
        model.vision_model.read_features()
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
    assert plan.most_per_step_sample == 0, "micro-batches are contrasted by themselves"


@pytest.mark.slow
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


@pytest.mark.slow
def test_contrast_over_a_whole_step_keeps_the_towers_features() -> None:
    """What exists beside the tensors of a micro-batch is what a real step of several micro-batches has there."""
    model, objective, size, parts = image_text_model(), RepresentationObjective(contrast="batch"), 4, 6
    model.train()
    precision = "bf16-mixed"
    plan = plan_step(copy.deepcopy(model).to("meta"), objective, TEXT, precision, on_gpu=False, sizes=(4, 8))
    batches = [full_batch(model, objective.batch_type, size, TEXT) for _ in range(parts)]
    for batch in batches:
        batch.pixel_values.normal_()
    with autocast(precision):
        whole = objective.first_pass(model, batches, torch.Generator().manual_seed(0), lambda _: None)
    assert whole.patch_features is not None
    kept = [whole.patch_features, whole.image_gradient, whole.text_gradient, *whole.texts]
    assert plan.most_per_step_sample * size * parts == sum(tensor.nbytes for tensor in kept)
    assert plan.most(size, size * parts) == plan.most(size) + sum(tensor.nbytes for tensor in kept)


def test_the_largest_micro_batch_of_a_step_that_is_contrasted_as_a_whole() -> None:
    step = PlannedStep(kept_fixed=0, kept_per_sample=2, most_fixed=4, most_per_sample=3, most_per_step_sample=0.5)
    assert step.largest_micro_batch(34, 10) == 10, "one micro-batch, and nothing has to be kept for others"
    assert step.largest_micro_batch(33, 10) == (33 - 4 - 5) // 3
    assert step.largest_micro_batch(8, 10) == 0


def test_the_largest_micro_batch() -> None:
    step = PlannedStep(kept_fixed=10, kept_per_sample=3, most_fixed=20, most_per_sample=4)
    for left in (0, 19, 24, 100, 103):
        largest = step.largest_micro_batch(left)
        assert step.most(largest) <= left or largest == 0
        assert step.most(largest + 1) > left
