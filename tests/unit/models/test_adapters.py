"""Adapters: where they are, what trains, what they compute, and that merging changes nothing."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import tiny
import torch
from tiny_generation import generation_batch, generative_model
from torch import nn

from blip2_train.errors import ConfigError
from blip2_train.models import adapters
from blip2_train.models.adapted_layers import adapter_layers, is_adapter
from blip2_train.models.adapters import add_adapters, merge_adapters
from blip2_train.models.configs import AdapterConfig
from blip2_train.models.freezing import frozen_weights, kept_names, trainable_names
from blip2_train.models.quantization import quantize_language_model
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective

pytest.importorskip("peft", reason="the extra 'peft' is not installed")

families = pytest.mark.parametrize("family", ["opt", "t5"])
DEFAULTS = {"opt": {"q_proj", "v_proj"}, "t5": {"q", "v"}, "gpt2": {"c_attn"}}


def adapted(family: str = "opt", language: dict[str, Any] | None = None, **settings: Any) -> Any:
    torch.manual_seed(3)
    model = generative_model(family, **(language or {}))
    add_adapters(model, AdapterConfig(**({"r": 4} | settings)))
    return model


def moved(model: nn.Module, size: float = 0.3) -> Any:
    """The same model after something was learnt."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def loss(model: Any, seed: int = 0) -> torch.Tensor:
    return GenerationObjective()(model, generation_batch(model, seed=seed)).total


def states(model: Any) -> torch.Tensor:
    batch = generation_batch(model)
    with torch.no_grad():
        return model.predicting_states(batch.pixel_values, batch.input_ids, batch.attention_mask, batch.labels)


@pytest.mark.parametrize("family", DEFAULTS)
def test_queries_and_values_get_adapters_of_the_configured_size(family: str) -> None:
    plain, model = generative_model(family), adapted(family)
    layers = adapter_layers(model.language_model)
    assert {name.rpartition(".")[2] for name in layers} == DEFAULTS[family] == set(model.adapters.target_modules)
    assert len(layers) == {"opt": 2 * 2, "t5": 2 * 3 * 2, "gpt2": 2}[family]
    expected = sum(4 * (layer.in_features + layer.out_features) for layer in layers.values())
    count = sum(p.numel() for name, p in model.named_parameters() if is_adapter(name))
    assert count == expected
    trained = {name for name in trainable_names(model) if not is_adapter(name)}
    assert trained == trainable_names(plain)
    assert frozen_weights(model).keys() == frozen_weights(plain).keys()
    assert kept_names(model) == trainable_names(model)


@families
def test_nothing_changes_at_first_and_all_that_trains_gets_a_gradient(family: str) -> None:
    plain, model = generative_model(family, seed=0), adapted(family)
    model.load_state_dict({n: t for n, t in plain.state_dict().items() if n in trainable_names(plain)}, strict=False)
    assert torch.equal(states(plain), states(model))
    moved(model, 0.01)
    assert not torch.equal(states(plain), states(model))
    loss(model.train()).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trainable_names(model)
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if is_adapter(n))


@families
def test_training_lowers_the_loss_and_leaves_the_language_model(family: str) -> None:
    model = adapted(family)
    own = [p for n, p in model.named_parameters() if is_adapter(n)]
    before = {name: weight.clone() for name, weight in frozen_weights(model).items()}
    optimizer, first = torch.optim.AdamW(own, lr=0.01), loss(model).item()
    for _ in range(8):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    assert loss(model).item() < 0.95 * first
    assert all(torch.equal(weight, before[name]) for name, weight in frozen_weights(model).items())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_beside_a_half_precision_model_they_have_full_precision(dtype: str, autocast: bool) -> None:
    """Gradients are of true size too, although those inside a float16 model are larger by a factor."""
    exact = moved(adapted("opt", {"dtype": "float32"}))
    half = adapted("opt", {"dtype": dtype})
    half.load_state_dict({n: t for n, t in exact.state_dict().items() if n in trainable_names(exact)}, strict=False)
    for name, parameter in half.named_parameters():
        if name.startswith("language_model.") and not is_adapter(name):
            parameter.data.copy_(dict(exact.named_parameters())[name])
    for model in (exact, half):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss(model.train()).backward()
    gradients = dict(exact.named_parameters())
    for name, parameter in half.named_parameters():
        if is_adapter(name):
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            error = (parameter.grad - gradients[name].grad).norm() / gradients[name].grad.norm()
            assert error < 0.2, name


def test_with_gradient_checkpointing_the_gradients_are_the_same() -> None:
    model = moved(adapted("opt", {"gradient_checkpointing": True}))
    plain = moved(adapted("opt"))
    actual = []
    for one in (model, plain):
        loss(one.train()).backward()
        actual.append({name: p.grad for name, p in one.named_parameters() if is_adapter(name)})
    assert actual[0].keys() == actual[1].keys()
    for name, gradient in actual[0].items():
        torch.testing.assert_close(gradient, actual[1][name], rtol=1e-4, atol=1e-6)


def test_their_dropout_acts_in_training_only_though_the_language_model_stays_in_eval_mode() -> None:
    model = moved(adapted(dropout=0.5))
    assert torch.equal(states(model.eval()), states(model))
    model.train()
    assert not model.language_model.training
    assert not torch.equal(states(model), states(model))


@families
def test_merged_is_the_same_function(family: str) -> None:
    model = moved(adapted(family)).double()
    before = states(model.eval())
    merge_adapters(model)
    assert model.adapters is None and not adapter_layers(model)
    assert model.state_dict().keys() == generative_model(family).state_dict().keys()
    torch.testing.assert_close(states(model), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_beside_a_quantised_model(quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    model = generative_model("opt")
    quantize_language_model(model.language_model, quantization)
    before = states(model)
    add_adapters(model, AdapterConfig(r=4))
    assert torch.equal(states(model), before)
    loss(model.train()).backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for n, p in model.named_parameters() if is_adapter(n))
    with pytest.raises(ConfigError, match="quantization=none"):
        merge_adapters(model)


def test_on_the_qformer_its_own_weights_are_frozen_and_images_are_read_through_the_adapters() -> None:
    plain, model = tiny.image_text_model(), tiny.image_text_model()
    add_adapters(model, AdapterConfig(target="qformer", r=2))
    batch = tiny.image_text_batch()
    same = [copy.deepcopy(m).encode_image(batch.pixel_values).image_features for m in (plain, model)]
    assert torch.equal(*same)
    objective = RepresentationObjective()
    objective(moved(model).train(), batch, torch.Generator().manual_seed(0)).total.backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    assert got == trainable_names(model)
    assert not any(n.startswith(("qformer.", "embeddings.")) and not is_adapter(n) for n in got)
    assert {"query_tokens", "itm_head.weight", "temperature", "ln_vision.weight"} < got
    values = [p for n, p in model.named_parameters() if is_adapter(n) and "crossattention.attention.value" in n]
    assert len(values) == 4 and all(p.grad.abs().max() > 0 for p in values)
    assert kept_names(model) - got == {
        n for n, p in model.named_parameters() if n.startswith(("qformer.", "embeddings.")) and not p.requires_grad
    }
    before = model.eval().encode_image(batch.pixel_values).image_features
    merge_adapters(model)
    torch.testing.assert_close(model.encode_image(batch.pixel_values).image_features, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_modules": ["q_proj", "query"]}, "'query' is no linear layer .*fc1, fc2, k_proj, out_proj, q_proj, v"),
        ({"target_modules": ["lm_head"]}, "'lm_head' is no linear layer"),
        ({"target_modules": ["embed_tokens"]}, "'embed_tokens' is no linear layer"),
        ({"target_modules": []}, "names no layer"),
        ({"target": "vision_model"}, "use one of language_model, qformer"),
        ({"r": 0}, "r must be at least 1"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"alpha": 0.0}, "alpha must be more than 0"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        adapted(**settings)


def test_stage_1_has_no_language_model() -> None:
    with pytest.raises(ConfigError, match=r"pass peft\.target=qformer"):
        add_adapters(tiny.image_text_model(), AdapterConfig())


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    adapters.peft.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r'pip install "blip2_train\[peft\]"'):
            add_adapters(generative_model(), AdapterConfig())
    finally:
        adapters.peft.cache_clear()
