"""A frozen tower in 8 bits: near to what it computes in 32, on all kinds of timm's towers, or refused in one line."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
import torch
from tiny import vision_config
from torch import Tensor, nn

from blip2_train.checkpoints.files import fingerprint
from blip2_train.errors import ConfigError
from blip2_train.models.tower_quantization import plain_weights, quantize_tower
from blip2_train.models.vision_tower import VisionTower

installed = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
SIZES = {"patch_size": 8, "embed_dim": 64, "num_heads": 4, "depth": 4}
TOWERS = ("vit_tiny_patch16_224", "eva_giant_patch14_clip_224", "eva02_tiny_patch14_224", "beit_base_patch16_224")
"""With a bias in the projection; without one; with rotary positions and a gated feed-forward; with relative ones."""


def tower(name: str = TOWERS[0], **options: Any) -> VisionTower:
    torch.manual_seed(0)
    made = VisionTower(vision_config(**({"name": name, "overrides": SIZES} | options)))
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.add_(0.5 * torch.randn_like(parameter))  # that are lost are seen
    return made


def features(made: VisionTower) -> Tensor:
    with torch.no_grad():
        return made(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))).float()


@installed
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", TOWERS)
def test_features_are_near_those_in_32_bits(name: str, dtype: str) -> None:
    expected, made = features(tower(name)), tower(name).to(getattr(torch, dtype))
    quantize_tower(made, "int8")
    error = float((features(made) - expected).norm() / expected.norm())
    assert 1e-4 < error < 0.03, "0 were a tower that is not quantised"
    assert made.quantization == "int8" and not any(p.requires_grad for p in made.parameters())


@installed
def test_weights_take_a_byte_and_are_distinguished() -> None:
    made = tower()
    before = fingerprint(dict(plain_weights(made.named_parameters())))
    assert before == fingerprint(dict(made.named_parameters()))
    quantize_tower(made, "int8")
    weights = dict(plain_weights(made.named_parameters()))
    layers = [name for name in weights if ".weight.qdata" in name]
    assert len(layers) == 4 * 3 and {weights[name].dtype for name in layers} == {torch.int8}
    assert fingerprint(weights) != before


@installed
def test_twice_is_once() -> None:
    made = tower()
    quantize_tower(made, "int8")
    once = features(made)
    quantize_tower(made, "int8")
    assert torch.equal(features(made), once)


def test_none_changes_nothing() -> None:
    made, expected = tower(), features(tower())
    quantize_tower(made, "none")
    assert torch.equal(features(made), expected) and made.quantization == "none"


@pytest.mark.parametrize(
    ("options", "quantization", "words"),
    [
        ({}, "int2", "vision_quantization 'int2' is unknown"),
        ({"frozen": False}, "int8", "vision_quantization=int8 is for a frozen vision tower, but this one trains"),
        ({}, "float8", "needs a GPU since Ada or Hopper, the tower is on cpu; pass vision_quantization=int8"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], quantization: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        quantize_tower(tower(**options), quantization)


@installed
def test_a_tower_without_such_layers_is_refused() -> None:
    made = tower(overrides=SIZES | {"embed_dim": 24, "num_heads": 2})
    with pytest.raises(ConfigError, match="no linear layers whose sizes are multiples of 16"):
        quantize_tower(made, "int8")
    assert isinstance(made.blocks[0].get_submodule("attn.qkv"), nn.Linear)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.delitem(sys.modules, "torchao.quantization", raising=False)
    with pytest.raises(ConfigError, match=r"vision_quantization=int8 needs torchao") as refused:
        quantize_tower(tower(), "int8")
    assert "\n" not in str(refused.value) and "blip2_train[quantization]" in str(refused.value)
