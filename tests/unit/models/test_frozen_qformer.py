"""A Q-Former that is frozen in part or whole: what trains, what is computed, what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import image_text_batch, image_text_model, qformer_config
from tiny_generation import generation_batch, generative_model
from torch import nn

from blip2_train.errors import ConfigError
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.adapters import add_adapters
from blip2_train.models.configs import AdapterConfig
from blip2_train.models.freezing import frozen_weights, kept_names, trainable_names
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective

DROPOUT = {"dropout": 0.5, "attention_dropout": 0.5}
HEADS = {"vision_projection", "text_projection", "itm_head", "lm_head", "temperature"}
PROJECTION = {"language_projection.weight", "language_projection.bias"}


def generative(frozen: str, **more: Any) -> Any:
    return generative_model(qformer={"frozen": frozen, **more.pop("qformer", {})}, **more)


def loss_of(model: Any) -> torch.Tensor:
    return GenerationObjective()(model, generation_batch(model)).total


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reads_questions", [False, True])
def test_what_trains_in_stage_2(reads_questions: bool) -> None:
    everything = trainable_names(generative("none", reads_questions=reads_questions))
    assert trainable_names(generative("queries", reads_questions=reads_questions)) == everything - {"query_tokens"}
    assert trainable_names(generative("all", reads_questions=reads_questions)) == PROJECTION


def test_what_trains_in_stage_1() -> None:
    everything = trainable_names(image_text_model())
    assert trainable_names(image_text_model(frozen="queries")) == everything - {"query_tokens"}
    heads = trainable_names(image_text_model(frozen="all"))
    assert {name.split(".")[0] for name in heads} == HEADS
    assert heads == {name for name in everything if name.split(".")[0] in HEADS}


@pytest.mark.parametrize("frozen", ["queries", "all"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    whole, part = (generative(value, vision={"frozen": False}).double() for value in ("none", frozen))
    assert torch.equal(loss_of(whole), loss_of(part))
    for model in (whole, part):
        loss_of(model).backward()
    expected = {name: gradient for name, gradient in gradients(whole).items() if name in trainable_names(part)}
    found = gradients(part)
    assert found.keys() == expected.keys() and found.keys() > PROJECTION
    assert any(name.startswith("vision_model.") for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_stage_1_gives_its_heads_the_same_gradients() -> None:
    losses = []
    models = [image_text_model(frozen=value).double() for value in ("none", "all")]
    models[1].load_state_dict(models[0].state_dict())
    batch = image_text_batch()
    batch = replace(batch, pixel_values=batch.pixel_values.double())
    for model in models:
        negatives = torch.Generator().manual_seed(1)
        losses.append(RepresentationObjective()(model, batch, negatives).total)
        losses[-1].backward()
    assert torch.equal(*(loss.detach() for loss in losses))
    expected, found = (gradients(model) for model in models)
    assert found.keys() == trainable_names(models[1])
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_a_wholly_frozen_qformer_drops_nothing() -> None:
    assert generative("queries", qformer=DROPOUT).train().qformer.training
    model = generative("all", qformer=DROPOUT).train()
    assert model.training and not any(part.training for part in model.qformer.modules())
    assert torch.equal(loss_of(model), loss_of(model.eval()))
    stage_1 = image_text_model(frozen="all", **DROPOUT).train()
    assert not any(part.training for name in ("qformer", "embeddings") for part in getattr(stage_1, name).modules())


def test_its_adapters_train_with_their_dropout() -> None:
    pytest.importorskip("peft", reason="the extra 'peft' is not installed")
    model = generative("all", qformer=DROPOUT)
    add_adapters(model, AdapterConfig(r=4, target="qformer", dropout=0.5))
    trained = trainable_names(model)
    assert trained > PROJECTION and all(is_adapter(name) for name in trained - PROJECTION)
    dropouts = [part for name, part in model.train().qformer.named_modules() if isinstance(part, nn.Dropout)]
    assert {part.training for part in dropouts} == {True, False}
    loss_of(model).backward()
    assert gradients(model).keys() == trained


@pytest.mark.parametrize("frozen", ["queries", "all"])
def test_checkpoints_and_exports_hold_it(frozen: str) -> None:
    """A frozen Q-Former has no file of its own, so that it is kept with what trained."""
    plain, model = generative("none"), generative(frozen)
    assert kept_names(model) == kept_names(plain) and frozen_weights(model).keys() == frozen_weights(plain).keys()


def test_no_other_value_is_taken() -> None:
    with pytest.raises(ConfigError, match="frozen 'layers' is unknown; use one of none, queries, all"):
        qformer_config(frozen="layers")
