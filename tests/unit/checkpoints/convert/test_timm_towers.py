"""Files of vision transformers in the names of those who published them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from tower_families import NARROW

from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import VisionConfig
from blip2_train.models.timm_without_wandb import timm
from blip2_train.models.vision_tower import VisionTower

SIZE = 112
State = dict[str, Tensor]


def _whole(name: str, size: int = SIZE) -> Any:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, img_size=size, num_classes=0, **NARROW)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def _open_clip(state: State) -> State:
    """OpenCLIP with a tower of timm's, beside a text encoder."""
    return {f"visual.trunk.{name}": tensor for name, tensor in state.items()} | {
        "text.token_embedding.weight": torch.ones(3, 4),
        "logit_scale": torch.ones(()),
    }


def _openai(state: State) -> State:
    """CLIP's own vision transformer."""
    names = (
        (r"^patch_embed\.proj", "conv1"), (r"^pos_embed", "positional_embedding"), (r"^cls_token", "class_embedding"),
        (r"^norm_pre", "ln_pre"), (r"^norm\.", "ln_post."), (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm(\d)\.", r".ln_\1."), (r"attn\.qkv\.", "attn.in_proj_"), (r"attn\.proj\.", "attn.out_proj."),
        (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
    )  # fmt: skip
    theirs: State = {"logit_scale": torch.ones(()), "transformer.resblocks.0.ln_1.weight": torch.ones(3)}
    for name, tensor in state.items():
        shaped = tensor[0] if name == "pos_embed" else tensor[0, 0] if name == "cls_token" else tensor
        for pattern, other in names:
            name = re.sub(pattern, other, name)
        theirs[f"visual.{name}"] = shaped.clone()
    return theirs


def _dinov2(state: State) -> State:
    """DINOv2 with registers: its positions have one for the class token."""
    theirs = {name: tensor for name, tensor in state.items() if name not in ("reg_token", "cls_token", "pos_embed")}
    of_class = torch.full_like(state["cls_token"], 0.25)
    return theirs | {
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - of_class,
        "pos_embed": torch.cat([of_class, state["pos_embed"]], dim=1),
        "mask_token": torch.zeros(1, 48),
    }


def _deit3(state: State) -> State:
    return {re.sub(r"\.ls(\d)\.gamma", r".gamma_\1", name): tensor for name, tensor in state.items()}


def _eva02(state: State) -> State:
    """EVA-02, with what timm computes and what only pretraining needs."""
    return state | {
        "rope.freqs_cos": torch.ones(4, 4),
        "mask_token": torch.zeros(1, 48),
        "lm_head.weight": torch.ones(2),
    }


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("vit_base_patch16_siglip_224", _open_clip),
        ("eva02_base_patch16_clip_224", _open_clip),
        ("vit_base_patch16_clip_quickgelu_224", _openai),
        ("vit_small_patch14_reg4_dinov2", _dinov2),
        ("deit3_small_patch16_224", _deit3),
        ("eva02_tiny_patch14_224", _eva02),
        ("vit_tiny_patch16_224", lambda state: state),
    ],
)
def test_published_names(name: str, rename: Callable[[State], State], tmp_path: Path) -> None:
    whole = _whole(name)
    theirs = rename(whole.state_dict())
    save_file({key: tensor.contiguous() for key, tensor in theirs.items()}, tmp_path / "theirs.safetensors")
    config = VisionConfig(
        name=name, weights=str(tmp_path / "theirs.safetensors"), image_size=SIZE, overrides=NARROW
    )  # fmt: skip
    tower = VisionTower(config)
    report = load_tower(tower, config)
    assert not report.fresh and len(report.loaded) == len(tower.tower.state_dict())
    assert bool(report.notes) == (theirs.keys() != whole.state_dict().keys())
    for key, tensor in tower.tower.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[key], rtol=0, atol=1e-6)


def test_another_image_size_is_resampled_without_antialiasing_too(tmp_path: Path) -> None:
    """The same as if the file had timm's names."""
    towers = []
    for rename in (_open_clip, dict):
        whole = _whole("vit_base_patch16_siglip_224", 224)
        save_file(rename(whole.state_dict()), tmp_path / "theirs.safetensors")
        config = VisionConfig(
            name="vit_base_patch16_siglip_224", weights=str(tmp_path / "theirs.safetensors"), image_size=SIZE,
            overrides=NARROW,
        )  # fmt: skip
        towers.append(VisionTower(config))
        load_tower(towers[-1], config)
    torch.testing.assert_close(towers[0].tower.pos_embed, towers[1].tower.pos_embed, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", ["of another patch size", "of nothing known"])
def test_what_does_not_fit_is_refused_by_name(wrong: str, tmp_path: Path) -> None:
    state = _open_clip(
        _whole("vit_base_patch32_clip_224" if "patch" in wrong else "vit_base_patch16_clip_224").state_dict()
    )
    if "nothing" in wrong:
        state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "theirs.safetensors")
    config = VisionConfig(
        name="vit_base_patch16_clip_224", weights=str(tmp_path / "theirs.safetensors"), image_size=SIZE,
        overrides=NARROW,
    )  # fmt: skip
    with pytest.raises(CheckpointMismatch, match=r"theirs\.safetensors.* lacks "):
        load_tower(VisionTower(config), config)
