"""Names of weights here and in the formats of others: tables of rules that are read in both directions.

A rule is a pair (name here, name there). `*` stands for one part of a dotted name, `**` for one or more; the wildcards
of the two sides correspond in order. The first rule that fits a name counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Rule = tuple[str, str]


class KeyMap:
    """A table of rules, usable in both directions.

    Args:
        rules: Pairs (name here, name there).

    Example:
        >>> names = KeyMap([("a.*.weight", "b.layers.*.w"), ("rest.**", "rest.**")])
        >>> names.to_theirs("a.3.weight"), names.to_ours("b.layers.3.w"), names.to_ours("c")
        ('b.layers.3.w', 'a.3.weight', None)
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = list(rules)
        self._there = [(_pattern(ours), _template(theirs)) for ours, theirs in rules]
        self._here = [(_pattern(theirs), _template(ours)) for ours, theirs in rules]

    def to_theirs(self, name: str) -> str | None:
        """Their name of one of our weights; None if they have no such weight."""
        return _rename(name, self._there)

    def to_ours(self, name: str) -> str | None:
        """Our name of one of their weights; None if it is unknown."""
        return _rename(name, self._here)


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", name)
    return re.compile("".join({"*": r"([^.]+)", "**": r"(.+)"}.get(part, re.escape(part)) for part in parts))


def _template(name: str) -> list[str]:
    return re.split(r"\*\*|\*", name)


def _rename(name: str, rules: Sequence[tuple[re.Pattern[str], list[str]]]) -> str | None:
    for pattern, fixed in rules:
        if match := pattern.fullmatch(name):
            return fixed[0] + "".join(part + text for part, text in zip(match.groups(), fixed[1:], strict=True))
    return None


_SAME = ("query_tokens", "itm_head.*", "vision_projection.*", "text_projection.*", "embeddings.**")

HUGGING_FACE = KeyMap(
    [
        ("vision_model.tower.cls_token", "vision_model.embeddings.class_embedding"),
        ("vision_model.tower.pos_embed", "vision_model.embeddings.position_embedding"),
        ("vision_model.tower.patch_embed.proj.*", "vision_model.embeddings.patch_embedding.*"),
        ("vision_model.tower.blocks.*.norm1.*", "vision_model.encoder.layers.*.layer_norm1.*"),
        ("vision_model.tower.blocks.*.norm2.*", "vision_model.encoder.layers.*.layer_norm2.*"),
        ("vision_model.tower.blocks.*.attn.qkv.*", "vision_model.encoder.layers.*.self_attn.qkv.*"),
        ("vision_model.tower.blocks.*.attn.proj.*", "vision_model.encoder.layers.*.self_attn.projection.*"),
        ("vision_model.tower.blocks.*.mlp.fc1.*", "vision_model.encoder.layers.*.mlp.fc1.*"),
        ("vision_model.tower.blocks.*.mlp.fc2.*", "vision_model.encoder.layers.*.mlp.fc2.*"),
        ("ln_vision.*", "vision_model.post_layernorm.*"),
        *((name, name) for name in (*_SAME, "qformer.**", "language_projection.*", "language_model.**")),
    ]
)
"""transformers' models for generation and retrieval; EVA's two biases are merged before."""

EVA_TOWER: tuple[Rule, ...] = (("vision_model.tower.**", "visual_encoder.**"),)
"""LAVIS's ViT-g has timm's names."""
CLIP_TOWER: tuple[Rule, ...] = (
    ("vision_model.tower.cls_token", "visual_encoder.class_embedding"),
    ("vision_model.tower.pos_embed", "visual_encoder.positional_embedding"),
    ("vision_model.tower.patch_embed.proj.weight", "visual_encoder.conv1.weight"),
    ("vision_model.tower.norm_pre.*", "visual_encoder.ln_pre.*"),
    ("vision_model.tower.blocks.*.norm1.*", "visual_encoder.transformer.resblocks.*.ln_1.*"),
    ("vision_model.tower.blocks.*.norm2.*", "visual_encoder.transformer.resblocks.*.ln_2.*"),
    ("vision_model.tower.blocks.*.attn.qkv.*", "visual_encoder.transformer.resblocks.*.attn.in_proj_*"),
    ("vision_model.tower.blocks.*.attn.proj.*", "visual_encoder.transformer.resblocks.*.attn.out_proj.*"),
    ("vision_model.tower.blocks.*.mlp.fc1.*", "visual_encoder.transformer.resblocks.*.mlp.c_fc.*"),
    ("vision_model.tower.blocks.*.mlp.fc2.*", "visual_encoder.transformer.resblocks.*.mlp.c_proj.*"),
)
"""LAVIS's ViT-L has OpenAI's names."""


def lavis_names(tower: Sequence[Rule], family: str) -> KeyMap:
    """Names of the original release.

    Args:
        tower: `EVA_TOWER` or `CLIP_TOWER`.
        family: `opt` or `t5`, which name the projection and the language model; anything else for stage 1.
    """
    return KeyMap(
        [
            *tower,
            ("query_tokens", "query_tokens"),
            ("ln_vision.*", "ln_vision.*"),
            ("temperature", "temp"),
            ("itm_head.*", "itm_head.*"),
            ("vision_projection.*", "vision_proj.*"),
            ("text_projection.*", "text_proj.*"),
            ("language_projection.*", f"{family}_proj.*"),
            ("language_model.**", f"{family}_model.**"),
            ("qformer.layernorm.*", "Qformer.bert.embeddings.LayerNorm.*"),
            ("embeddings.*.weight", "Qformer.bert.embeddings.*.weight"),
            ("qformer.encoder.layer.*.*.attention.**", "Qformer.bert.encoder.layer.*.*.self.**"),
            ("qformer.encoder.layer.**", "Qformer.bert.encoder.layer.**"),
            ("lm_head.bias", "Qformer.cls.predictions.bias"),
            ("lm_head.*.*", "Qformer.cls.predictions.transform.*.*"),
        ]
    )


PADDLE_OPT = KeyMap(
    (f"language_model.{ours}", f"language_model.{theirs}")
    for ours, theirs in (
        ("model.decoder.embed_tokens.weight", "opt.embeddings.word_embeddings.weight"),
        ("model.decoder.embed_positions.weight", "opt.embeddings.position_embeddings.weight"),
        ("model.decoder.layers.*.self_attn_layer_norm.*", "opt.decoder.layers.*.norm1.*"),
        ("model.decoder.layers.*.final_layer_norm.*", "opt.decoder.layers.*.norm2.*"),
        ("model.decoder.layers.*.fc1.*", "opt.decoder.layers.*.linear1.*"),
        ("model.decoder.layers.*.fc2.*", "opt.decoder.layers.*.linear2.*"),
        ("model.decoder.**", "opt.decoder.**"),
        ("lm_head.weight", "lm_head.decoder_weight"),
    )
)
"""PaddleNLP's own OPT; everything else there has transformers' names."""
