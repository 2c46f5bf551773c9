"""Families of timm that can be a vision tower, and some that cannot; prints the table of docs/towers.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.data import resolve_model_data_config

from blip2_train.checkpoints.convert.huggingface_tower import describe_tower
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.timm_without_wandb import timm
from blip2_train.models.vision_tower import VisionTower, normalisation

KNOWN: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)): "CLIP",
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "ImageNet",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "0.5",
}
NARROW: dict[str, Any] = {"embed_dim": 48, "num_heads": 3, "depth": 3}


@dataclass(frozen=True)
class Family:
    """A family by one of its models."""

    label: str
    name: str
    """Of timm, with a tag."""
    prefix_tokens: int
    native: int
    """Image size of the weights, pixels."""
    patch: int

    @property
    def architecture(self) -> str:
        return self.name.partition(".")[0]


FAMILIES = (
    Family("EVA-CLIP (the paper's ViT-g)", "eva_giant_patch14_clip_224.laion400m", 1, 224, 14),
    Family("CLIP (the paper's ViT-L)", "vit_large_patch14_clip_quickgelu_224.openai", 1, 224, 14),
    Family("CLIP, OpenCLIP", "vit_base_patch16_clip_224.laion2b", 1, 224, 16),
    Family("EVA-02", "eva02_tiny_patch14_224.mim_in22k", 1, 224, 14),
    Family("EVA-02-CLIP", "eva02_base_patch16_clip_224.merged2b", 1, 224, 16),
    Family("SigLIP", "vit_base_patch16_siglip_224.webli", 0, 224, 16),
    Family("SigLIP 2", "vit_base_patch16_siglip_256.v2_webli", 0, 256, 16),
    Family("DINOv2", "vit_small_patch14_dinov2.lvd142m", 1, 518, 14),
    Family("DINOv2 with registers", "vit_small_patch14_reg4_dinov2.lvd142m", 5, 518, 14),
    Family("DINOv3", "vit_small_patch16_dinov3.lvd1689m", 5, 256, 16),
    Family("ViT, ImageNet-21k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", 1, 224, 16),
    Family("MAE", "vit_base_patch16_224.mae", 1, 224, 16),
    Family("DeiT", "deit_tiny_patch16_224.fb_in1k", 1, 224, 16),
    Family("DeiT, distilled", "deit_tiny_distilled_patch16_224.fb_in1k", 2, 224, 16),
    Family("DeiT III", "deit3_small_patch16_224.fb_in22k_ft_in1k", 1, 224, 16),
    Family("BEiT v2", "beitv2_base_patch16_224.in1k_ft_in22k", 1, 224, 16),
    Family("Perception Encoder", "vit_pe_core_tiny_patch16_384.fb", 1, 384, 16),
    Family("ViT with learned rotary positions", "vit_small_patch16_rope_mixed_ape_224.naver_in1k", 1, 224, 16),
    Family("ViT with registers, no class token", "vit_medium_patch16_reg4_gap_256.sbb_in12k", 4, 256, 16),
)
REFUSED = {
    "vit_base_mci_224": "MobileCLIP-B",
    "fastvit_mci0": "MobileCLIP-S",
    "vitamin_small_224": "ViTamin",
    "vit_base_r50_s16_224": "ViT with a ResNet stem",
    "hiera_tiny_224": "Hiera",
    "swin_tiny_patch4_window7_224": "Swin",
    "convnext_tiny": "ConvNeXt",
    "resnet50": "ResNet",
    "samvit_base_patch16": "SAM",
    "naflexvit_base_patch16_gap": "NaFlexViT",
    "cait_xxs24_224": "CaiT",
    "mixer_s16_224": "MLP-Mixer",
}


def tower_on_meta(name: str, image_size: int, **changes: Any) -> VisionTower:
    """A tower of its real size, without memory."""
    with torch.device("meta"):
        return VisionTower(VisionConfig(name=name, weights="random", image_size=image_size, **changes))


def table() -> str:
    """The table of families, as the documentation has it."""
    lines = [
        "| Family | For instance | Mean, std | Prefix tokens | Patches | As transformers' BLIP-2 |",
        "|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        tower = tower_on_meta(family.name, family.native)
        numbers = KNOWN[normalisation(VisionConfig(name=family.name, weights="timm", image_size=family.native))]
        h, w = tower.grid_size
        patches = f"{h} x {w} at {family.native}"
        try:
            describe_tower(tower)
            held = "yes"
        except CheckpointMismatch as error:
            held = "no: " + str(error).partition("tower: ")[2].removesuffix("; choose another format")
        cells = family.label, f"`{family.name}`", numbers, str(tower.num_prefix_tokens), patches, held
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def refused() -> str:
    """The list of what is refused, with the reason that is given."""
    lines = []
    for name, label in REFUSED.items():
        try:
            tower_on_meta(name, 224)
        except ConfigError as error:
            reason = str(error).partition("vision tower: ")[2].partition("; choose")[0]
            lines.append(f"* {label} (`{name}`): {reason}")
    return "\n".join(lines)


def comparison() -> str:
    """Mean and std of each family beside those of timm's `resolve_model_data_config`."""
    lines = ["| Name | Ours | timm's | |", "|---|---|---|---|"]
    for family in FAMILIES:
        ours = normalisation(VisionConfig(name=family.name, weights="timm", image_size=family.native))
        with torch.device("meta"):
            data = resolve_model_data_config(timm.create_model(family.name, pretrained=False))
        theirs = data["mean"], data["std"]
        lines.append(f"| {family.name} | {ours} | {theirs} | {'equal' if ours == theirs else 'DIFFERENT'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"timm {timm.__version__}\n\n{table()}\n\n{refused()}\n\n{comparison()}")
