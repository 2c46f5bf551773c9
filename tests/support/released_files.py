"""Names and shapes in the files of the original release, written down from their description."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def released(width: int, family: str = "", projected: int = 0, tower: int = 0) -> Shapes:
    """Names and shapes in a released file, written down from its description.

    Args:
        width: Of the tower.
        family: `opt` or `t5` with `projected`, the width of the language model; empty for stage 1.
        tower: Image size if the tower is inside.
    """
    size, inner, words = 768, 3072, 30523
    shapes: Shapes = {"query_tokens": (1, 32, size)} | norm("ln_vision", width)
    shapes |= norm("Qformer.bert.embeddings.LayerNorm", size)
    for index in range(12):
        layer = f"Qformer.bert.encoder.layer.{index}"
        kinds = [("attention", size)] + ([("crossattention", width)] if index % 2 == 0 else [])
        for kind, source in kinds:
            shapes |= linear(f"{layer}.{kind}.self.query", size, size)
            shapes |= linear(f"{layer}.{kind}.self.key", size, source) | linear(
                f"{layer}.{kind}.self.value", size, source
            )
            shapes |= linear(f"{layer}.{kind}.output.dense", size, size) | norm(
                f"{layer}.{kind}.output.LayerNorm", size
            )
        for kind in ("_query", "") if not family else ("_query",):
            shapes |= linear(f"{layer}.intermediate{kind}.dense", inner, size)
            shapes |= linear(f"{layer}.output{kind}.dense", size, inner) | norm(f"{layer}.output{kind}.LayerNorm", size)
    if family:
        shapes |= linear(f"{family}_proj", projected, size)
    else:
        shapes["Qformer.bert.embeddings.word_embeddings.weight"] = (words, size)
        shapes["Qformer.bert.embeddings.position_embeddings.weight"] = (512, size)
        shapes |= linear("Qformer.cls.predictions.transform.dense", size, size)
        shapes |= norm("Qformer.cls.predictions.transform.LayerNorm", size)
        shapes |= linear("Qformer.cls.predictions.decoder", words, size) | {"Qformer.cls.predictions.bias": (words,)}
        shapes |= linear("vision_proj", 256, size) | linear("text_proj", 256, size) | linear("itm_head", 2, size)
        shapes["temp"] = ()
    return shapes | (released_eva(tower) if tower and width == 1408 else released_clip(tower) if tower else {})


def released_eva(image_size: int) -> Shapes:
    width, inner = 1408, 6144
    shapes: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + (image_size // 14) ** 2, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    for index in range(39):
        block = f"blocks.{index}"
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= {f"{block}.attn.{name}": (width,) for name in ("q_bias", "v_bias")}
        shapes |= {f"{block}.attn.qkv.weight": (3 * width, width)} | linear(f"{block}.attn.proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", inner, width) | linear(f"{block}.mlp.fc2", width, inner)
    return {f"visual_encoder.{name}": shape for name, shape in shapes.items()}


def released_clip(image_size: int) -> Shapes:
    width = 1024
    shapes: Shapes = {"class_embedding": (width,), "positional_embedding": (1 + (image_size // 14) ** 2, width)}
    shapes |= {"conv1.weight": (width, 3, 14, 14)} | norm("ln_pre", width)
    for index in range(23):
        block = f"transformer.resblocks.{index}"
        shapes |= norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{block}.attn.out_proj", width, width)
        shapes |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(f"{block}.mlp.c_proj", width, 4 * width)
    return {f"visual_encoder.{name}": shape for name, shape in shapes.items()}


VIT_G_364, VIT_L_364 = 986_485_888, 291_011_584
RELEASED = {
    "blip2_pretrained.pth": ((1408,), "stage1_vit_g", 186_705_470),
    "blip2_pretrained_vitL.pth": ((1024,), "stage1_vit_l", 183_165_758),
    "blip2_finetune_coco.pth": ((1408, "", 0, 364), "stage1_vit_g", 186_705_470 + VIT_G_364),
    "blip2_pretrained_opt2.7b.pth": ((1408, "opt", 2560), "stage2_vit_g_opt_2.7b", 107_133_696),
    "blip2_pretrained_opt6.7b.pth": ((1408, "opt", 4096), "stage2_vit_g_opt_6.7b", 108_314_880),
    "blip2_pretrained_flant5xl.pth": ((1408, "t5", 2048), "stage2_vit_g_flan_t5_xl", 106_739_968),
    "blip2_pretrained_flant5xxl.pth": ((1408, "t5", 4096), "stage2_vit_g_flan_t5_xxl", 108_314_880),
    "blip2_pretrained_flant5xl_vitL.pth": ((1024, "t5", 2048), "stage2_vit_l_flan_t5_xl", 103_200_256),
    "blip2_caption_opt2.7b.pth": ((1408, "opt", 2560, 364), "stage2_vit_g_opt_2.7b", 1_093_619_584),
    "blip2_caption_opt6.7b.pth": ((1408, "opt", 4096, 364), "stage2_vit_g_opt_6.7b", 108_314_880 + VIT_G_364),
    "blip2_caption_flant5xl.pth": ((1408, "t5", 2048, 364), "stage2_vit_g_flan_t5_xl", 106_739_968 + VIT_G_364),
    "a ViT-L with its tower": ((1024, "", 0, 364), "stage1_vit_l", 183_165_758 + VIT_L_364),
}  # fmt: skip
"""File: its layout, our recipe of the same model, and parameters (each tied one counted once)."""
