"""Every family of timm that the documentation names: what it is, and that its features are timm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from tiny import image_text_model
from tower_families import FAMILIES, NARROW, REFUSED, Family, refused, table, tower_on_meta

from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.errors import ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.query_attention import query_attention
from blip2_train.models.timm_without_wandb import timm
from blip2_train.models.vision_tower import VisionTower, create_timm_tower, normalisation
from blip2_train.optim.config import OptimizerConfig
from blip2_train.optim.param_groups import parameter_groups

each = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.architecture)
SMALL = 112
"""Pixels per side, a multiple of every patch size and of no tower's own size."""


def _config(family: Family, image_size: int = SMALL, **changes: Any) -> VisionConfig:
    options: dict[str, Any] = {"weights": "random", "overrides": NARROW} | changes
    return VisionConfig(name=family.name, image_size=image_size, **options)


def _stirred(module: torch.nn.Module, seed: int = 0) -> None:
    """Values for what starts at nought or one, too: positions, class token, scales, tables."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def _second_last(whole: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What timm's whole model hands to its last block."""
    kept: list[torch.Tensor] = []
    hook = whole.blocks[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        whole.forward_features(pixels)
    hook.remove()
    return kept[0]


@pytest.mark.slow
def test_the_documentation_has_the_table(root: Path) -> None:
    """`python tests/support/tower_families.py` prints both."""
    page = (root / "docs/towers.md").read_text("utf-8")
    assert table() in page
    assert refused() in page


@pytest.mark.slow
@each
def test_normalisation_tokens_and_grid_are_timms(family: Family) -> None:
    with torch.device("meta"):
        theirs: Any = timm.create_model(family.name, pretrained=False)
    data = resolve_model_data_config(theirs)
    actual = normalisation(VisionConfig(name=family.name, weights="timm", image_size=family.native))
    assert actual == (data["mean"], data["std"]) and data["input_size"] == (3, family.native, family.native)
    for size in (family.native, SMALL):
        tower = tower_on_meta(family.name, size)
        side = size // family.patch
        assert tower.grid_size == (side, side)
        assert tower.num_prefix_tokens == family.prefix_tokens == theirs.num_prefix_tokens
        assert tower.num_blocks == len(theirs.blocks) - 1 and tower.width == theirs.embed_dim
        with torch.no_grad():
            features = tower.tower.forward_features(torch.empty(2, 3, size, size, device="meta"))
        assert features.shape == (2, family.prefix_tokens + side * side, theirs.embed_dim)


@pytest.mark.slow
@each
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_are_those_that_timms_last_block_reads(family: Family, dtype: str) -> None:
    config = _config(family, dtype=dtype)
    whole = create_timm_tower(config).eval()
    _stirred(whole)
    whole = whole.to(getattr(torch, dtype))
    tower = VisionTower(config)
    missing, _ = tower.tower.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    pixels = torch.randn(2, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(1))
    features, expected = tower(pixels), _second_last(whole, pixels.to(getattr(torch, dtype)))
    assert features.dtype == expected.dtype and features.float().std() > 0.1
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", [one for one in FAMILIES if "tiny" in one.name or "reg4_dinov2" in one.name])
def test_features_of_towers_of_their_real_size(family: Family) -> None:
    torch.manual_seed(0)
    config = _config(family, 224, overrides=None)
    whole = create_timm_tower(config).eval()
    tower = VisionTower(config)
    assert not tower.tower.load_state_dict(whole.state_dict(), strict=False).missing_keys
    pixels = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(tower(pixels), _second_last(whole, pixels), rtol=0, atol=1e-6)


@pytest.mark.slow
@each
@pytest.mark.filterwarnings("ignore")  # torch's, about timm's way of indexing
def test_weights_of_the_native_size_are_resized(family: Family, tmp_path: Path) -> None:
    """Positions of prefix tokens stay, those of patches are resampled; features are timm's with such positions."""
    native: Any = timm.create_model(family.architecture, **NARROW)
    _stirred(native)
    save_file(native.state_dict(), tmp_path / "model.safetensors")
    config = _config(family, weights=str(tmp_path / "model.safetensors"))
    tower = VisionTower(config)
    report = load_tower(tower, config)
    assert not report.fresh
    whole, state = create_timm_tower(config).eval(), native.state_dict()
    target = whole.state_dict()
    grid = (SMALL // family.patch,) * 2
    for name, tensor in state.items():
        if name == "pos_embed":
            own = tensor.shape[1] - (family.native // family.patch) ** 2
            assert own in (0, family.prefix_tokens)
            state[name] = resample_abs_pos_embed(tensor, grid, num_prefix_tokens=own, antialias=False)
            assert torch.equal(tower.tower.pos_embed[:, :own], tensor[:, :own])
            assert tower.tower.pos_embed.shape[1] == own + grid[0] * grid[1]
        elif name.endswith("relative_position_bias_table"):
            state[name] = resize_rel_pos_bias_table(tensor, grid, target[name].shape)
    whole.load_state_dict({name: state[name] for name in target})
    pixels = torch.randn(1, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(tower(pixels), _second_last(whole, pixels), rtol=0, atol=1e-6)


@pytest.mark.slow
@each
def test_a_trained_tower_uses_every_weight_and_knows_its_depth(family: Family) -> None:
    actual = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        tower = VisionTower(_config(family, frozen=False, gradient_checkpointing=checkpointing))
        _stirred(tower)
        tower(torch.randn(2, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(1))).square().mean().backward()
        actual.append({name: parameter.grad for name, parameter in tower.named_parameters()})
    for name, gradient in actual[0].items():
        assert gradient is not None and gradient.abs().max() > 0, name
        torch.testing.assert_close(actual[1][name], gradient, rtol=0, atol=0)
    numbers = OptimizerConfig(
        lr=1e-3, min_lr=0.0, warmup_lr=0.0, warmup_steps=0, steps=1, betas=(0.9, 0.98), weight_decay=0.1,
        layer_decay=0.5, decay_embeddings=False,
    )  # fmt: skip
    named = [(f"vision_model.{name}", parameter) for name, parameter in tower.named_parameters()]
    groups = parameter_groups(named, tower.num_blocks, numbers)
    where = {name.removeprefix("vision_model.tower."): group for group in groups for name in group.parameter_names}
    assert len(where) == len(named)
    spared = set(getattr(tower.tower, "no_weight_decay", set)())
    for name, group in where.items():
        block = name.split(".")[1] if name.startswith("blocks.") else None
        assert group.lr_scale == (0.125 if block is None else 0.5 ** (2 - int(block))), name
        assert not (group.weight_decay and name in spared), name


@each
def test_attention_is_shown_on_the_patches(family: Family) -> None:
    vision = {"name": family.name, "image_size": SMALL, "overrides": NARROW}
    model = image_text_model(vision=vision).eval()
    pixels = torch.randn(2, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(1))
    looks = query_attention(model, pixels)
    side = SMALL // family.patch
    assert looks.shape == (2, 4, side, side)
    on_patches = looks.sum(dim=(2, 3))
    if family.prefix_tokens:
        assert (on_patches < 1 - 1e-4).all() and (on_patches > 0.1).all()
    else:
        torch.testing.assert_close(on_patches, torch.ones_like(on_patches))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_other_families_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        tower_on_meta(name, 224)
    generated = str(refusal.value)
    assert name in generated and "cannot be the vision tower" in generated and "\n" not in generated
    if "mci_224" in name or "vitamin" in name or "_r50_" in name:
        assert "hybrid" in generated


@pytest.mark.parametrize("size", [7, 100])
def test_an_image_size_without_whole_patches(size: int) -> None:
    with pytest.raises(ConfigError, match=r"patches of 16 pixels.*use"):
        tower_on_meta("vit_small_patch16_dinov3.lvd1689m", size)


def test_images_of_any_size_by_override() -> None:
    """timm's `dynamic_img_size` resamples positions at run time; at the tower's own size nothing is resampled."""
    family = next(family for family in FAMILIES if "reg4_dinov2" in family.name)
    towers = [VisionTower(_config(family, overrides=NARROW | {"dynamic_img_size": flag})) for flag in (False, True)]
    towers[1].load_state_dict(towers[0].state_dict())
    pixels = torch.randn(1, 3, SMALL, SMALL)
    torch.testing.assert_close(towers[1](pixels), towers[0](pixels), rtol=0, atol=0)
