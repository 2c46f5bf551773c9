"""Descriptions of models in files of others: an allow-list of plain, typed values.

What a person sets on the command line or in a recipe is not held to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers import __version__ as transformers_version

from blip2_train.errors import CheckpointMismatch
from blip2_train.models.architecture_keys import architecture_keys, is_fetched
from blip2_train.models.configs import AdapterConfig, LanguageModelConfig, QFormerConfig, VisionConfig, find_family
from blip2_train.system.records import JsonObject, Size, check_record

TIMM_ARGUMENTS = frozenset(
    """
    act_layer attn_drop_rate attn_layer attn_only_layer_scale attn_pool_mlp_ratio attn_pool_num_heads attn_type
    class_token depth drop_path_rate drop_rate dynamic_img_pad dynamic_img_size embed_dim embed_norm_layer fc_norm
    final_norm global_pool init_values mlp_layer mlp_ratio no_embed_class norm_layer num_heads num_kv_heads
    num_reg_tokens patch_drop_rate patch_size pool_include_prefix pos_drop_rate pos_embed pre_norm proj_bias
    proj_drop_rate qk_norm qkv_bias qkv_fused ref_feat_shape reg_tokens rel_pos_dim rel_pos_type rope_grid_indexing
    rope_grid_offset rope_mrope_section rope_rotate_half rope_temperature rope_type scale_attn_inner scale_attn_norm
    scale_mlp scale_mlp_norm shared_rel_pos swiglu_align_to swiglu_mlp use_abs_pos_emb use_fc_norm use_post_norm
    use_post_transformer_norm use_pre_transformer_norm use_rel_pos_bias use_rot_pos_emb use_shared_rel_pos_bias
    """.split()
)
"""Arguments of timm's plain vision transformers that define a tower; nothing that is loaded or fetched."""
_FIX = "export the run again with this version, or give weights of another source"
_TIMM_NAME = re.compile(r"\w+(\.[\w.+-]+)?")
"""Without the sources that timm takes instead of a name: `hf-hub:…`, `local-dir:…`."""
_MOST_LAYERS = 1000
_LAYERS = re.compile(r"(^|_)(depth|n_layers?|layers)$")
_Three = Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]


class _Description(msgspec.Struct, kw_only=True):
    kind: str
    vision: JsonObject
    qformer: JsonObject
    language: JsonObject | None = None
    adapters: JsonObject | None = None
    question_to_qformer: bool = False


class _Task(msgspec.Struct):
    task_type: Literal["SEQ_2_SEQ_LM", "CAUSAL_LM"]


class _Processor(msgspec.Struct, kw_only=True):
    image_size: Size
    max_text_length: Size
    mean: _Three
    std: _Three
    prompt: str = ""


def check_processor(values: Any, what: object) -> dict[str, Any]:
    """The description of a processor (`Processor.describe`) in a file; all fields may be missing.

    Raises:
        CheckpointMismatch: naming the file and the field.
    """
    if values != {}:
        check_record(values, _Processor, f"{what}: processor", _FIX, closed=True)
    return dict(values)


def check_description(values: Any, what: object) -> dict[str, Any]:
    """The description of a model (`describe_model`) in a file; all fields may be missing.

    Args:
        values: Plain values.
        what: The file, for messages.

    Returns:
        The same, without what transformers notes in its configurations and does not compute with.

    Raises:
        CheckpointMismatch: naming the file and the field that is missing, of the wrong type, or must not be set.
    """
    if values == {}:
        return {}
    description = check_record(values, _Description, f"{what}: architecture", _FIX, closed=True)
    vision = {key: value for key, value in description.vision.items() if key != "family"}
    kinds: tuple[tuple[str, type[Any], Any], ...] = (
        ("vision", family_of(description.vision, what), vision),
        ("qformer", QFormerConfig, description.qformer),
        ("language", LanguageModelConfig, description.language),
    )
    for name, kind, part in kinds:
        if part is not None:
            check_record(part, kind, f"{what}: architecture.{name}", _FIX, closed=True)
            _refuse_too_many_layers(part, f"{what}: architecture.{name}")
    checked = dict(values)
    if description.adapters is not None:
        location = f"{what}: architecture.adapters"
        check_record(description.adapters, _Task, location, _FIX)
        own = {key: value for key, value in description.adapters.items() if key != "task_type"}
        check_record(own, AdapterConfig, location, _FIX, closed=True)
    if "family" not in description.vision and not _TIMM_NAME.fullmatch(description.vision["name"]):
        name = description.vision["name"]
        raise CheckpointMismatch(f"{what}: architecture.vision.name {name!r} is no name of timm; {_FIX}")
    for key in description.vision.get("overrides") or {}:
        if key not in TIMM_ARGUMENTS:
            raise _not_settable(f"{what}: architecture.vision.overrides", key)
    if description.language is not None:
        checked["language"] = _checked_language(description.language, f"{what}: architecture.language")
    return checked


def family_of(vision: Mapping[str, Any], what: object) -> type[VisionConfig]:
    """The class of the tower that a description names.

    Raises:
        CheckpointMismatch: if no imported module has such a class.
    """
    name = vision.get("family")
    if (family := find_family(name)) is None:
        raise CheckpointMismatch(
            f"{what}: its vision tower is of the family {name}, which is not part of this project: import the module "
            "that defines it before the weights are opened"
        )
    return family


def without_own_choices(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a vision tower or language model without what a description must not set: how one computes.

    Args:
        values: Of a `VisionConfig` or `LanguageModelConfig`; others, without `overrides`, stay as they are.
    """
    chosen = dict(values)
    if "overrides" not in values:
        return chosen
    if "architecture" not in values:  # a tower
        chosen["overrides"] = {k: v for k, v in (values["overrides"] or {}).items() if k in TIMM_ARGUMENTS}
        return chosen
    chosen["overrides"] = {k: v for k, v in values["overrides"].items() if not is_fetched(k)}
    if values["architecture"] is not None:
        chosen["architecture"] = settable_architecture(values["architecture"])
    return chosen


def settable_architecture(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration of transformers', plain values with `model_type`, that its class uses."""
    known = _known_keys(str(values.get("model_type", "")))
    inner = _inner_kinds(str(values.get("model_type", "")))
    kept = {key: value for key, value in values.items() if key in known and not is_fetched(key)}
    for key in inner & kept.keys():
        if isinstance(kept[key], Mapping) and "model_type" in kept[key]:
            kept[key] = settable_architecture(kept[key])
    return kept


def _checked_language(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    for key in values.get("overrides") or {}:
        if is_fetched(key) or not re.fullmatch(r"_?[a-z][a-z0-9_]*", key):
            raise _not_settable(f"{what}.overrides", key)
    architecture = values.get("architecture")
    if architecture is None:
        return dict(values)
    for location, key, value in _walk(architecture, f"{what}.architecture"):
        if is_fetched(key) and value is not None:
            raise _not_settable(location, key)
        _refuse_too_many_layers({key: value}, location)
    kind = architecture.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointMismatch(
            f"{what}.architecture: model_type {kind!r} is unknown to transformers {transformers_version}; {_FIX}"
        )
    return {**values, "architecture": settable_architecture(architecture)}


def _walk(values: Mapping[str, Any], location: str) -> Iterator[tuple[str, str, Any]]:
    """Location, key and value of everything inside mappings; their depth is bounded."""
    for key, value in values.items():
        yield location, key, value
        if isinstance(value, Mapping):
            yield from _walk(value, f"{location}.{key}")


def _refuse_too_many_layers(values: Mapping[str, Any], location: str) -> None:
    for name, value in [*values.items(), *(values.get("overrides") or {}).items()]:
        if _LAYERS.search(name) and isinstance(value, int) and value > _MOST_LAYERS:
            raise CheckpointMismatch(f"{location}: {name} is {value}, more than {_MOST_LAYERS}; {_FIX}")


def _not_settable(location: str, key: str) -> CheckpointMismatch:
    return CheckpointMismatch(
        f"{location}: {key} is nothing that a file may set of a model; take it out of the file, or give weights of "
        "another source"
    )


@cache
def _known_keys(model_type: str) -> frozenset[str]:
    return (
        architecture_keys(CONFIG_MAPPING[model_type]) | {"model_type"} if model_type in CONFIG_MAPPING else frozenset()
    )


def _inner_kinds(model_type: str) -> frozenset[str]:
    if model_type not in CONFIG_MAPPING:
        return frozenset()
    kind: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    return frozenset(kind.sub_configs)
