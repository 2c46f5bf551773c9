"""Quantised language models: what they compute, what they keep, what they take."""

import copy
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import tiny
import tiny_generation
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from blip2_train.config.compose import asset
from blip2_train.data.emoji_scenes.split_scenes import split_scenes
from blip2_train.errors import ConfigError
from blip2_train.models.configs import GenerationOptions, LanguageModelConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.memory import language_model_bytes, stored_bytes
from blip2_train.models.quantization import (
    QuantizedLinear,
    bitsandbytes,
    quantize_language_model,
    quantize_weight,
)
from blip2_train.models.quantized_loading import loading_options

ARCHITECTURES = tiny_generation.ARCHITECTURES | {
    "t5": tiny_generation.ARCHITECTURES["t5"] | {"tie_word_embeddings": True},
    "llama": tiny_generation.ARCHITECTURES["llama"] | {"num_key_value_heads": 1},
}

both = pytest.mark.parametrize("quantization", ["int8", "int4"])
every_family = pytest.mark.parametrize("family", ARCHITECTURES)


@pytest.fixture
def bnb() -> Any:
    return pytest.importorskip("bitsandbytes", reason="the extra 'quantization' is not installed")


def language_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    values = dict(ARCHITECTURES[family])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    factory: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = factory.from_config(config, dtype=dtype).eval()
    return model


def logits(model: PreTrainedModel, embeddings: Tensor) -> Tensor:
    generated = (
        {"decoder_input_ids": torch.arange(4).expand(len(embeddings), 4)} if model.config.is_encoder_decoder else {}
    )
    result: Tensor = cast(Any, model)(inputs_embeds=embeddings, **generated).logits
    return result


def with_plain_layers(quantised: PreTrainedModel) -> PreTrainedModel:
    """The same model with ordinary layers that hold the dequantised weights."""
    model = copy.deepcopy(quantised)
    for name, layer in quantised.named_modules():
        if isinstance(layer, QuantizedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            plain.weight = nn.Parameter(layer.dequantized(torch.float32))
            plain.bias = layer.bias
            model.set_submodule(name, plain)
    return model


@pytest.mark.parametrize(("quantization", "error"), [("int8", 0.01), ("int4", 0.1)])
@pytest.mark.parametrize("shape", [(8, 64), (96, 160), (12, 96), (5, 7), (64, 32)])
def test_weights_come_back_within_the_rounding(
    bnb: Any, quantization: str, error: float, shape: tuple[int, int]
) -> None:
    """Also where a block of 64 weights spans rows: there bitsandbytes' own dequantisation is wrong on some CPUs."""
    layer = nn.Linear(shape[1], shape[0])
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    back = QuantizedLinear.of(layer, quantization).dequantized(torch.float32)
    assert back.shape == shape
    difference = (back - layer.weight).norm() / layer.weight.norm()
    assert 0 < difference < error


@both
def test_a_row_of_zeros_stays_zero(bnb: Any, quantization: str) -> None:
    layer = nn.Linear(64, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    assert not QuantizedLinear.of(layer, quantization).dequantized(torch.float32)[1].any()


@both
@every_family
def test_computes_with_the_weights_it_stands_for(bnb: Any, quantization: str, family: str) -> None:
    model = quantize_language_model(language_model(family), quantization)
    plain = with_plain_layers(model)
    embeddings = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    answers = []
    for candidate in (model, plain):
        candidate.requires_grad_(False)
        given = embeddings.clone().requires_grad_()
        output = logits(candidate, given)
        answers.append((output, torch.autograd.grad(output.square().sum(), given)[0]))
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=1e-4, atol=1e-4)
    assert answers[0][1].abs().max() > 0


@both
@every_family
def test_keeps_embeddings_norms_biases_and_head(bnb: Any, quantization: str, family: str) -> None:
    model = language_model(family, torch.bfloat16)
    before = dict(model.named_parameters(remove_duplicate=False))
    head = model.get_output_embeddings()
    quantize_language_model(model, quantization)
    after = dict(model.named_parameters(remove_duplicate=False))
    layers = {name for name, part in model.named_modules() if isinstance(part, QuantizedLinear)}
    assert layers
    for name, parameter in after.items():
        part, _, kind = name.rpartition(".")
        if part in layers and kind in ("weight", "scale"):
            assert parameter.dtype == (torch.int8 if kind == "weight" else torch.float32)
            assert not parameter.requires_grad
        else:
            assert parameter is before[name]
            assert parameter.dtype == torch.bfloat16
    assert model.get_output_embeddings() is head
    assert [part for part in model.modules() if isinstance(part, nn.Linear)] == [head]


@both
def test_nothing_large_waits_for_the_backward_pass(bnb: Any, quantization: str) -> None:
    layer, kept = QuantizedLinear.of(nn.Linear(64, 32), quantization), []
    states = torch.randn(3, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = layer(states)
    output.sum().backward()
    assert kept == []
    torch.testing.assert_close(states.grad, layer.dequantized(torch.float32).sum(0).expand(3, 64))


def test_the_kernel_for_single_tokens_agrees(bnb: Any) -> None:
    layer = QuantizedLinear.of(nn.Linear(128, 48), "int4")
    states = torch.randn(2, 3, 128)
    with torch.no_grad():
        torch.testing.assert_close(layer.by_kernel(states, layer.bias), layer(states))


@both
def test_bfloat16_does_not_overflow_as_float16_would(bnb: Any, quantization: str) -> None:
    layer = QuantizedLinear.of(nn.Linear(64, 8, dtype=torch.bfloat16), quantization)
    output = layer(torch.full((1, 64), 1e6, dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


@both
def test_under_autocast(bnb: Any, quantization: str) -> None:
    layer = QuantizedLinear.of(nn.Linear(64, 8), quantization)
    states = torch.randn(4, 64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(states)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert states.grad is not None
    assert states.grad.dtype == torch.float32


@pytest.mark.slow
@both
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["opt", "t5"])
def test_takes_the_bytes_that_are_predicted(bnb: Any, quantization: str, dtype: str, name: str) -> None:
    """Predicted without weights, measured on the demo's language models as files are read."""
    folder = asset(f"demo/{name}")
    factory: Any = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    model = factory.from_pretrained(folder, dtype=dtype, **loading_options(quantization))
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in model.state_dict().values()}
    predicted = language_model_bytes(LanguageModelConfig(name=folder), dtype, quantization)
    assert sum(storages.values()) == stored_bytes(model) == predicted
    assert predicted < language_model_bytes(LanguageModelConfig(name=folder), dtype)


def test_bits_per_weight() -> None:
    """8 bits and a float32 scale per output; 4 bits and a float32 scale per 64 weights. Counting needs no library."""
    with torch.device("meta"):
        layer = nn.Linear(4096, 1024, bias=False)
    assert stored_bytes(QuantizedLinear.of(layer, "int8")) == 4096 * 1024 + 4 * 1024
    assert stored_bytes(QuantizedLinear.of(layer, "int4")) == 4096 * 1024 * (0.5 + 4 / 64)


@pytest.mark.slow
@both
@every_family
def test_while_loading_as_after_loading(bnb: Any, quantization: str, family: str, tmp_path: Path) -> None:
    source = language_model(family)
    source.save_pretrained(tmp_path)
    factory: Any = type(source)
    while_loading, actual = factory.from_pretrained(tmp_path, output_loading_info=True, **loading_options(quantization))
    assert not any(actual.values())
    after = quantize_language_model(factory.from_pretrained(tmp_path), quantization)
    expected, got = after.state_dict(), while_loading.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    with pytest.raises(ValueError, match="not serializable"):
        while_loading.save_pretrained(tmp_path / "saved")


@both
def test_from_tensors_in_memory_as_from_files(bnb: Any, quantization: str) -> None:
    source = language_model("opt")
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    factory: Any = type(source)
    loaded = factory.from_pretrained(None, config=source.config, state_dict=state, **loading_options(quantization))
    expected = quantize_language_model(source, quantization).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in loaded.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantization", "share"),
    [("opt", "int8", 0.99), ("opt", "int4", 0.95), ("t5", "int8", 0.98), ("t5", "int4", 0.9)],
)
def test_the_demo_models_expect_the_same_next_tokens(bnb: Any, name: str, quantization: str, share: float) -> None:
    """On captions of unseen scenes, the most likely next token stays what it was."""
    folder, factory = asset(f"demo/{name}"), AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    tokenizer, model = AutoTokenizer.from_pretrained(folder), cast(Any, factory).from_pretrained(folder)
    quantised = quantize_language_model(copy.deepcopy(model), quantization)
    same = []
    for scene in split_scenes("test", 24, 1):
        for caption in scene.captions[:2]:
            ids = tokenizer(caption, return_tensors="pt").input_ids
            read = {"input_ids": ids[:, :4], "labels": ids[:, 4:].contiguous()} if name == "t5" else {"input_ids": ids}
            with torch.no_grad():
                guesses = [cast(Any, candidate)(**read).logits.argmax(-1) for candidate in (model, quantised)]
            same += (guesses[0] == guesses[1]).flatten().tolist()
    assert len(same) > 300
    assert sum(same) / len(same) >= share


@both
def test_survives_a_copy_and_a_state_dict(bnb: Any, quantization: str) -> None:
    model = quantize_language_model(language_model("opt"), quantization)
    other = quantize_language_model(language_model("opt", seed=1), quantization)
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = cast(Any, model)(input_ids=ids).logits
        assert not torch.equal(cast(Any, other)(input_ids=ids).logits, expected)
        other.load_state_dict(copy.deepcopy(model).state_dict())
        assert torch.equal(cast(Any, other)(input_ids=ids).logits, expected)


@both
@pytest.mark.parametrize("family", ["opt", "t5"])
def test_stage_2_trains_through_it(bnb: Any, quantization: str, family: str) -> None:
    torch.manual_seed(0)
    language = LanguageModelConfig(name=family, weights="random", architecture=ARCHITECTURES[family])
    model = GenerativeModel(tiny.vision_config(), tiny.qformer_config(), language)
    quantize_language_model(model.language_model, quantization).requires_grad_(False)
    frozen = {name: tensor.clone() for name, tensor in model.language_model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    ids = torch.randint(3, tiny_generation.WORDS, (2, 6), generator=torch.Generator().manual_seed(0))
    mask, pixels = torch.ones_like(ids, dtype=torch.bool), torch.randn(2, 3, 32, 32)
    model.predicting_states(pixels, ids, mask, ids).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    optimizer.step()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in model.language_model.state_dict().items())
    tokens = {"eos_token_id": 2, "pad_token_id": 1}
    written = model.eval().generate(pixels, ids, mask, GenerationOptions(num_beams=2, max_new_tokens=4), **tokens)
    assert written.shape[0] == 2


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r'pip install "blip2_train\[quantization\]"'):
        quantize_weight(torch.ones(2, 64), "int8")
    bitsandbytes.cache_clear()


def test_a_model_twice_is_refused() -> None:
    with torch.device("meta"):
        model = language_model("opt")
    quantize_language_model(model, "int8")
    with pytest.raises(ConfigError, match="no linear layers left"):
        quantize_language_model(model, "int4")


def test_none_changes_nothing_and_anything_else_is_refused() -> None:
    with torch.device("meta"):
        model = language_model("opt")
    before = list(model.modules())
    assert list(quantize_language_model(model, "none").modules()) == before
    with pytest.raises(ConfigError, match="use one of none, int8, int4"):
        quantize_language_model(model, "int3")
