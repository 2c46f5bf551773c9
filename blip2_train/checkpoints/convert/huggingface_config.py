"""The model that a configuration of transformers' BLIP-2 describes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import torch
from torch import Tensor
from transformers import AutoTokenizer, Blip2Config, PretrainedConfig

from blip2_train.checkpoints.foreign_descriptions import settable_architecture
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch
from blip2_train.from_transformers import load_config, load_tokenizer
from blip2_train.models.configs import ACTIVATIONS
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.records import JsonObject, Size, check_record, read_record

T = TypeVar("T")
MAX_TEXT_LENGTH = 32
"""Tokens per text of the released code."""
_VIT_G = {
    "hidden_size": 1408,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "intermediate_size": 6144,
    "patch_size": 14,
}
_DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


_AGAIN = "download it again"
_Channels = Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]


class _ImageProcessor(msgspec.Struct):
    image_mean: float | _Channels | None = None
    image_std: float | _Channels | None = None
    do_normalize: bool | None = None


class _Tower(msgspec.Struct):
    hidden_act: str
    layer_norm_eps: float
    image_size: Size
    patch_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    qkv_bias: bool


class _QFormer(msgspec.Struct):
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    cross_attention_frequency: Size
    vocab_size: Size
    max_position_embeddings: Size
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    layer_norm_eps: float
    hidden_act: str


class _Blip2(msgspec.Struct):
    num_query_tokens: Size
    image_text_hidden_size: Size


def _stated(config: Any, kind: type[T], location: str, part: str = "") -> T:
    """The fields of a configuration that a record names, with the types that it names."""
    names = getattr(kind, "__struct_fields__", ())
    values = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return check_record(values, kind, f"{location}: config.json{part and ': ' + part}", _AGAIN)


def is_blip2_config(folder: Path) -> bool:
    """Whether a folder holds a configuration of transformers' BLIP-2."""
    try:
        content = read_record(folder / "config.json", JsonObject, _AGAIN)
    except CheckpointMismatch:
        return False
    return content.get("model_type") == Blip2Config.model_type


def read_config(folder: Path) -> Any:
    """The `Blip2Config` of a folder.

    Raises:
        CheckpointMismatch: if transformers cannot read it.
    """
    try:
        return load_config(Blip2Config, str(folder))
    except CheckpointMismatch:
        raise
    except Exception as error:  # transformers raises whatever its readers raise
        reason = reason_of(error)
        raise CheckpointMismatch(
            f"{folder / 'config.json'} cannot be read as a configuration of BLIP-2 ({reason})"
        ) from error


def describe_config(config: Any, state: Mapping[str, Tensor], location: str) -> dict[str, Any]:
    """The model of a configuration, as `build_model` reads it; precisions are those of the weights.

    Args:
        config: A `Blip2Config`.
        state: The weights under our names; a matching head makes it a stage-1 model.
        location: Its origin, for messages.

    Raises:
        CheckpointMismatch: if it is unknown here.
    """
    qformer = _stated(config.qformer_config, _QFormer, location, "qformer_config")
    whole = _stated(config, _Blip2, location)
    _only(qformer.hidden_act in ACTIVATIONS, location, f"its Q-Former computes {qformer.hidden_act!r}, not known here")
    retrieval = "itm_head.weight" in state
    description: dict[str, Any] = {
        "kind": (ImageTextModel if retrieval else GenerativeModel).__name__,
        "vision": _describe_tower(config.vision_config, _dtype(state, "vision_model."), location),
        "qformer": {
            "weights": "random",
            "hidden_size": qformer.hidden_size,
            "num_layers": qformer.num_hidden_layers,
            "num_heads": qformer.num_attention_heads,
            "intermediate_size": qformer.intermediate_size,
            "num_queries": whole.num_query_tokens,
            "cross_attention_every": qformer.cross_attention_frequency,
            "vocab_size": qformer.vocab_size,
            "max_positions": qformer.max_position_embeddings,
            "dropout": qformer.hidden_dropout_prob,
            "attention_dropout": qformer.attention_probs_dropout_prob,
            "layer_norm_eps": qformer.layer_norm_eps,
            "hidden_act": qformer.hidden_act,
            "feature_size": whole.image_text_hidden_size,
        },
    }
    if not retrieval:
        architecture = plain_architecture(config.text_config)
        description["language"] = {
            "name": config.text_config._name_or_path or location,
            "architecture": architecture,
            "dtype": _dtype(state, "language_model."),
        }
    return description


def plain_architecture(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration of a language model as plain values with `model_type`."""
    return settable_architecture(json.loads(json.dumps(config.to_dict())))


def special_tokens(folder: Path, config: PretrainedConfig) -> dict[str, Any]:
    """The end of a language model's texts, where it is not the tokenizer's own.

    Raises:
        CheckpointMismatch: if the folder has no tokenizer.
    """
    try:
        tokenizer = load_tokenizer(AutoTokenizer, str(folder))
    except CheckpointMismatch:
        raise
    except Exception as error:  # transformers raises whatever its readers raise
        reason = reason_of(error)
        raise CheckpointMismatch(
            f"the tokenizer in {folder} cannot be read ({reason}); download the whole folder"
        ) from error
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id in ends or ends[0] is None:
        return {}
    text = tokenizer.decode([ends[0]])
    again = tokenizer(text, add_special_tokens=False).input_ids
    return {"end_token": text if again == ends[:1] else tokenizer.convert_ids_to_tokens(ends[0])}


def describe_processor(folder: Path, image_size: int) -> dict[str, Any]:
    """The preprocessing of images, from the files of a folder, in the form of `Processor.describe`.

    Without such files, or where they do not state them, mean and std are those of transformers' `BlipImageProcessor`:
    CLIP's.

    Raises:
        CheckpointMismatch: if a file cannot be read.
    """
    values: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = read_record(folder / name, JsonObject, _AGAIN)
            stated = content.get("image_processor", content)
            read = msgspec.structs.asdict(check_record(stated, _ImageProcessor, folder / name, _AGAIN))
            values |= {key: value for key, value in read.items() if value is not None}
    normalises = values.get("do_normalize") is not False
    return {
        "image_size": image_size,
        "max_text_length": MAX_TEXT_LENGTH,
        "mean": _per_channel(values.get("image_mean"), CLIP_MEAN) if normalises else [0.0] * 3,
        "std": _per_channel(values.get("image_std"), CLIP_STD) if normalises else [1.0] * 3,
        "prompt": "",
    }


def _per_channel(value: float | list[float] | None, default: Sequence[float]) -> list[float]:
    """One value per channel; a file may have one for all."""
    if value is None:
        return list(default)
    return [float(value)] * 3 if isinstance(value, int | float) else list(value)


def _describe_tower(stated: PretrainedConfig, dtype: str, location: str) -> dict[str, Any]:
    """The released ViT-g as timm's, any other as a plain vision transformer of the same sizes."""
    config = _stated(stated, _Tower, location, "vision_config")
    eps = config.layer_norm_eps
    _only(config.hidden_act == "gelu", location, f"its tower computes {config.hidden_act!r} instead of 'gelu'")
    _only(eps <= 1e-5, location, f"its tower's layer_norm_eps is {eps} instead of 1e-6")  # 1e-5: a slip in old copies
    known = {"image_size": config.image_size, "dtype": dtype}
    if config.qkv_bias and all(getattr(config, key) == value for key, value in _VIT_G.items()):
        return {"name": "eva_giant_patch14_clip_224.laion400m", "weights": "timm", **known}
    ratio = config.intermediate_size / config.hidden_size
    if int(config.hidden_size * ratio) != config.intermediate_size:
        ratio = (config.intermediate_size + 0.5) / config.hidden_size
    overrides = {
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": ratio,
        "qkv_bias": config.qkv_bias,
    }
    return {"name": "vit_base_patch16_224", "weights": "random", "dropped_blocks": 0, "overrides": overrides, **known}


def _dtype(state: Mapping[str, Tensor], part: str) -> str:
    first = next((tensor for name, tensor in state.items() if name.startswith(part)), None)
    return "float32" if first is None else _DTYPES.get(first.dtype, "float32")


def _only(condition: bool, location: str, reason: str) -> None:
    if not condition:
        raise CheckpointMismatch(f"{location} cannot be held here: {reason}")
