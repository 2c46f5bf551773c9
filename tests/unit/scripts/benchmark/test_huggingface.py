"""transformers' twin has this project's weights themselves, and computes the same with them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmark import text_generation
from benchmark.agreement import prove_ids, prove_losses, prove_training
from benchmark.generation import GenerationStage
from benchmark.huggingface import TowerOfOurs, as_loaded, image_token, share_weights, with_image_tokens
from benchmark.plans import Plan
from benchmark.random_text import random_prompts
from plain import Mark, no_mark
from tiny_generation import generation_batch, generative_model
from torch import Tensor

from blip2_train.errors import TrainingError
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.objectives.generation import GenerationObjective

PRE_NORM = {"overrides": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "pre_norm": True}}


def plans(model: GenerativeModel) -> list[Plan]:
    return GenerationStage().build_plans(("huggingface", "all_positions", "labelled"), model, GenerationObjective())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "t5", "llama"])
def test_losses_gradients_and_ids(family: str) -> None:
    model = generative_model(family).eval()
    batch = generation_batch(model)
    batch.input_ids.clamp_(max=image_token(model) - 1)
    batch.labels.clamp_(max=image_token(model) - 1)
    assert "all_positions, labelled" in prove_training(plans(model), model, batch)
    prompts = random_prompts(model, torch.tensor([1, 3, 2]), torch.Generator().manual_seed(0))
    for beams in (1, 3):
        options = GenerationOptions(num_beams=beams, min_new_tokens=6, max_new_tokens=6)
        theirs, ours = (
            text_generation.theirs(model, share_weights(model), options),
            text_generation.ours(model, options),
        )
        generated = {"theirs": theirs(prompts, no_mark), "ours": ours(prompts, no_mark)}
        assert generated["ours"].shape == (3, 6)
        assert "equal ids for 3 images" in prove_ids("beams", generated)


def test_weights_are_shared_and_stay_as_they_were() -> None:
    model = generative_model("t5")
    before = {name: (p, p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    twin = share_weights(model)
    theirs = {id(p) for p in twin.parameters()}
    for name, (parameter, trained, value) in before.items():
        now = dict(model.named_parameters())[name]
        assert now is parameter and now.requires_grad == trained and torch.equal(now, value), name
        assert id(parameter) in theirs, name
    assert sum(p.requires_grad for p in twin.parameters()) == sum(trained for _, trained, _ in before.values())


def test_a_tower_that_transformers_cannot_hold_is_ours_in_both() -> None:
    model = generative_model("opt", vision=PRE_NORM).eval()
    assert isinstance(share_weights(model).vision_model, TowerOfOurs)
    prove_training(plans(model), model, generation_batch(model))


def test_low_precision_leaves_the_trained_weights_alone() -> None:
    model = generative_model("opt").eval()
    batch = generation_batch(model)
    model.language_model.to(torch.bfloat16)  # type: ignore[arg-type]
    model.vision_model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert "huggingface" in prove_losses(plans(model), batch, 2e-2)
    twin = as_loaded(share_weights(model))
    assert twin.language_projection.weight.dtype == twin.vision_model.post_layernorm.weight.dtype == torch.bfloat16
    assert model.language_projection.weight.dtype == model.ln_vision.weight.dtype == torch.float32
    options = GenerationOptions(num_beams=1, min_new_tokens=4, max_new_tokens=4)
    prompts = random_prompts(model, torch.tensor([1, 2]), torch.Generator().manual_seed(0))
    assert text_generation.theirs(model, twin, options)(prompts, no_mark).shape == (2, 4)


def test_image_tokens_stand_in_front_and_nowhere_else() -> None:
    model = generative_model("opt")
    token = image_token(model)
    ids, mask = with_image_tokens(model, torch.tensor([[5, token]]), torch.tensor([[True, False]]))
    assert ids.tolist() == [[token] * 4 + [5, token - 1]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0]]


def altered(plan: Plan, change: Any) -> Plan:
    def forward(batch: Any, mark: Mark) -> Tensor:
        loss = plan.forward(batch, mark)
        assert loss is not None
        return change(loss)

    return replace(plan, forward=forward)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda loss: loss + 0.01, "the loss of plan labelled"),
        (lambda loss: loss * float("nan"), "labelled"),
        (lambda loss: loss.detach() * 0.5 + loss * 0.5, "gradients of plan labelled"),
    ],
)
def test_plans_that_differ_are_refused(change: Any, reason: str) -> None:
    model = generative_model("opt").eval()
    theirs, _, ours = plans(model)
    with pytest.raises(TrainingError, match=reason):
        prove_training([theirs, altered(ours, change)], model, generation_batch(model))


def test_ids_that_differ_are_refused() -> None:
    generated = {"a": torch.tensor([[1, 2], [3, 4]]), "b": torch.tensor([[1, 2], [3, 5]])}
    with pytest.raises(TrainingError, match="for image 1"):
        prove_ids("greedy", generated)
    with pytest.raises(TrainingError):
        prove_ids("greedy", {"a": generated["a"], "b": generated["b"][:, :1]})
