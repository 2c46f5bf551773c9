"""Reads files of the original release, LAVIS: `{"model": {name: tensor}}` without what was frozen in training.

Sizes that tensors do not show (heads, which tower, which language model) are those of the release; our own file states
them itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from blip2_train.checkpoints.convert.huggingface import converted_manifest, rename
from blip2_train.checkpoints.convert.huggingface_config import MAX_TEXT_LENGTH
from blip2_train.checkpoints.convert.key_map import CLIP_TOWER, EVA_TOWER, KeyMap, lavis_names
from blip2_train.checkpoints.export import checked_manifest
from blip2_train.checkpoints.files import only_tensors
from blip2_train.checkpoints.foreign_weights import SourceWeights, State
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.system.records import JsonObject, parse_record

NOTE = "blip2_train"
"""Key beside `model` under which a file of ours describes itself, as JSON."""
TIED = {
    "Qformer.cls.predictions.decoder.weight": "Qformer.bert.embeddings.word_embeddings.weight",
    "Qformer.cls.predictions.decoder.bias": "Qformer.cls.predictions.bias",
}
"""Second names of tensors."""
_TOWERS = {
    1408: ("ViT-g", "eva_giant_patch14_clip_224.laion400m", EVA_TOWER),
    1024: ("ViT-L", "vit_large_patch14_clip_quickgelu_224.openai", CLIP_TOWER),
}
_LANGUAGE_MODELS = {
    ("opt", 2560): "facebook/opt-2.7b",
    ("opt", 4096): "facebook/opt-6.7b",
    ("t5", 2048): "google/flan-t5-xl",
    ("t5", 4096): "google/flan-t5-xxl",
}
_LANGUAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "opt": {"dtype": "float16", "start_token": "</s>", "end_token": "\n"},
    "t5": {"dtype": "bfloat16", "overrides": {"dense_act_fn": "gelu"}},
}
_CLIP_SHAPES = ("vision_model.tower.cls_token", "vision_model.tower.pos_embed")
_PATCH, _HEAD = 14, 64


class _Note(msgspec.Struct):
    manifest: JsonObject
    config: str


def read_lavis(content: Any, location: str, language_model: str | None) -> SourceWeights | None:
    """Read a LAVIS file; None if it is none.

    Args:
        content: Content of the file.
        location: Its path.
        language_model: Folder or hub id of the language model, None = the released one.

    Raises:
        CheckpointMismatch: if it holds other things than tensors, a key is unknown or lacks, or its sizes are of no
            released model.
    """
    theirs = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(theirs, dict) or not any(str(key).startswith("Qformer.") for key in theirs):
        return None
    theirs = only_tensors(theirs, location)
    family = next((name for name in ("opt", "t5") if f"{name}_proj.weight" in theirs), "")
    towers = CLIP_TOWER if "visual_encoder.class_embedding" in theirs else EVA_TOWER
    names = lavis_names(towers, family)
    source = _kind(theirs, family)
    untied, tied = _without_second_names(theirs, f"{source} {location}")
    state, ignored = rename(untied, names, f"{source} {location}")
    common: dict[str, Any] = {
        "source": source,
        "location": location,
        "state": state,
        "their_name": names.to_theirs,
        "fit": _fit,
        "ignored": (*ignored, *tied),
    }
    if NOTE in content:
        note = parse_record(content[NOTE], _Note, f"{location}: {NOTE}", "convert the model again")
        manifest = checked_manifest(note.manifest, f"{location}: {NOTE}")
        return SourceWeights(
            **common,
            description=manifest.architecture,
            processor=manifest.processor,
            manifest=manifest,
            config=note.config,
        )
    description = _describe(state, names, family, language_model, location)
    size = description["vision"]["image_size"]
    prompt = "a photo of" if family and _has_tower(theirs) else ""
    return SourceWeights(
        **common,
        description=description,
        processor={
            "image_size": size,
            "max_text_length": MAX_TEXT_LENGTH,
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "prompt": prompt,
        },
        manifest=converted_manifest(not family, f"{source} {location}"),
    )


def _kind(theirs: Mapping[str, Tensor], family: str) -> str:
    tower = ", with its tower" if _has_tower(theirs) else ""
    return f"LAVIS stage 2 ({family.upper()}{tower})" if family else f"LAVIS stage 1 (retrieval{tower})"


def _has_tower(theirs: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("visual_encoder.") for key in theirs)


def _without_second_names(theirs: Mapping[str, Tensor], what: str) -> tuple[State, tuple[str, ...]]:
    for second, first in TIED.items():
        if second in theirs and (first not in theirs or not torch.equal(theirs[second], theirs[first])):
            raise CheckpointMismatch(f"{what}: {second} is not the same as {first}, though the model ties them")
    kept = {key: tensor for key, tensor in theirs.items() if key not in TIED}
    return kept, tuple(key for key in TIED if key in theirs)


def _describe(
    state: Mapping[str, Tensor], names: KeyMap, family: str, language_model: str | None, location: str
) -> dict[str, Any]:
    def shape(name: str) -> torch.Size:
        if name not in state:
            raise CheckpointMismatch(f"{location} lacks {names.to_theirs(name)}; the file is not complete")
        return state[name].shape

    layer = "qformer.encoder.layer"
    queries, size = shape("query_tokens")[1:]
    width = shape("ln_vision.weight")[0]
    if width not in _TOWERS or size % _HEAD:
        raise CheckpointMismatch(
            f"{location} is for a tower {width} wide and a Q-Former {size} wide; the release has towers of "
            f"{' and '.join(map(str, _TOWERS))} and a Q-Former of 768"
        )
    depth = 1 + max(int(name.split(".")[3]) for name in state if name.startswith(layer))
    crossing = sorted({int(n.split(".")[3]) for n in state if n.startswith(layer) and ".crossattention." in n})
    description: dict[str, Any] = {
        "kind": (GenerativeModel if family else ImageTextModel).__name__,
        "vision": _describe_tower(state, width),
        "qformer": {
            "weights": "random",
            "hidden_size": size,
            "num_layers": depth,
            "num_heads": size // _HEAD,
            "intermediate_size": shape(f"{layer}.0.intermediate_query.dense.weight")[0],
            "num_queries": queries,
            "cross_attention_every": crossing[1] if len(crossing) > 1 else depth,
        },
    }
    if not family:
        vocabulary, positions = (shape(f"embeddings.{kind}_embeddings.weight")[0] for kind in ("word", "position"))
        features = shape("vision_projection.weight")[0]
        description["qformer"] |= {"vocab_size": vocabulary, "max_positions": positions, "feature_size": features}
        return description
    projected = shape("language_projection.weight")[0]
    name = language_model or _LANGUAGE_MODELS.get((family, projected))
    if name is None:
        raise CheckpointMismatch(
            f"{location} is for a language model {projected} wide, which is none of the release; name it: "
            "language_model"
        )
    description["language"] = {"name": name, **_LANGUAGE_OPTIONS[family]}
    return description


def _describe_tower(state: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    positions = state.get("vision_model.tower.pos_embed")
    name = {"name": _TOWERS[width][1], "weights": "timm"}
    if positions is None:
        return {**name, "image_size": 224, "dtype": "float16"}
    grid = math.isqrt(positions.shape[-2] - 1)
    dtype = str(positions.dtype).removeprefix("torch.")
    return {**name, "image_size": grid * _PATCH, "dtype": dtype}


def _fit(state: State, expected: Mapping[str, Tensor]) -> State:
    """OpenAI's class token and positions without their leading ones."""
    return {
        name: tensor.reshape(expected[name].shape)
        if name in _CLIP_SHAPES and name in expected and tensor.numel() == expected[name].numel()
        else tensor
        for name, tensor in state.items()
    }
