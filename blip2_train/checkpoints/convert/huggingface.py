"""Reads transformers' BLIP-2: `Blip2ForConditionalGeneration` and `Blip2ForImageTextRetrieval`.

The last layer norm of transformers' tower computes with the eps of all its others, 1e-6; here as in the original it is
`ln_vision` with 1e-5.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2_train.checkpoints.convert.huggingface_config import (
    describe_config,
    describe_processor,
    read_config,
    special_tokens,
)
from blip2_train.checkpoints.convert.key_map import HUGGING_FACE, KeyMap
from blip2_train.checkpoints.convert.qkv_bias import split_qkv_biases
from blip2_train.checkpoints.export import MANIFEST, TOKENIZER, Manifest, read_config_text, read_export, read_manifest
from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.foreign_weights import SourceWeights, State
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel

SIDE = "blip2_train"
"""Folder inside an exported one, with what transformers cannot hold."""
GENERATION, RETRIEVAL = "Blip2ForConditionalGeneration", "Blip2ForImageTextRetrieval"
_log = logging.getLogger(__name__)


def read_huggingface(folder: Path, location: str) -> SourceWeights:
    """Read a folder of transformers' BLIP-2.

    Args:
        folder: With `config.json`, weights (whole or in shards), tokenizer and image processor.
        location: The name that the user gave.

    Raises:
        CheckpointMismatch: if something is missing, damaged, or unknown.
    """
    theirs = read_weights(folder)
    kind = RETRIEVAL if "itm_head.weight" in theirs else GENERATION
    source = f"Hugging Face {kind}"
    state, ignored = rename(theirs, HUGGING_FACE, f"{source} {location}")
    side = _read_side(folder, state)
    if side is not None:
        extra, manifest = side
        return SourceWeights(
            source=f"{source} made by blip2_train",
            location=location,
            description=manifest.architecture,
            state=state | extra,
            processor=manifest.processor,
            tokenizer=str(folder / SIDE / TOKENIZER),
            manifest=manifest,
            config=read_config_text(folder / SIDE),
            their_name=HUGGING_FACE.to_theirs,
            fit=_fit_own,
            ignored=ignored,
        )
    config = read_config(folder)
    return SourceWeights(
        source=source,
        location=location,
        description=_describe(folder, config, state, location),
        state=state,
        processor=describe_processor(folder, config.vision_config.image_size),
        tokenizer=str(folder),
        manifest=converted_manifest(kind == RETRIEVAL, f"{source} {location}"),
        their_name=HUGGING_FACE.to_theirs,
        fit=split_qkv_biases,
        may_miss=("lm_head.*", "temperature") if kind == RETRIEVAL else (),
        ignored=ignored,
    )


def describe_huggingface(folder: Path, location: str) -> SourceWeights:
    """As `read_huggingface` without the weights, from the other files of a folder.

    Precisions are not included. What was changed after an export of this project is not noticed.
    """
    config = read_config(folder)
    kind = RETRIEVAL if RETRIEVAL in (config.architectures or ()) else GENERATION
    common: dict[str, Any] = {"location": location, "source": f"Hugging Face {kind}"}
    names = ["query_tokens", "vision_model.", *(["itm_head.weight"] if kind == RETRIEVAL else ["language_model."])]
    state = {name: torch.empty(0, device="meta") for name in names}
    if (folder / SIDE / MANIFEST).is_file():
        manifest = read_manifest(folder / SIDE)
        common |= {"description": manifest.architecture, "processor": manifest.processor, "manifest": manifest}
        return SourceWeights(**common, state=state, tokenizer=str(folder / SIDE / TOKENIZER))
    return SourceWeights(
        **common,
        description=_describe(folder, config, state, location),
        state=state,
        processor=describe_processor(folder, config.vision_config.image_size),
        tokenizer=str(folder),
        manifest=converted_manifest(kind == RETRIEVAL, f"Hugging Face {kind} {location}"),
    )


def _describe(folder: Path, config: Any, state: Mapping[str, Tensor], location: str) -> dict[str, Any]:
    description = describe_config(config, state, location)
    if "language" in description:
        description["language"] |= special_tokens(folder, config.text_config)
    return description


def rename(theirs: Mapping[str, Tensor], names: KeyMap, what: str) -> tuple[State, tuple[str, ...]]:
    """Their weights under our names, and their keys that are not needed.

    Raises:
        CheckpointMismatch: naming an unknown key.
    """
    ours = {key: names.to_ours(key) for key in theirs if not key.endswith("position_ids")}
    unknown = [key for key, name in ours.items() if name is None]
    if unknown:
        raise CheckpointMismatch(
            f"{what} holds {len(unknown)} keys that are not known here, first {unknown[0]}; it is another model"
        )
    ignored = tuple(key for key in theirs if key not in ours)  # a buffer of older versions: 0, 1, 2, …
    return {str(name): theirs[key] for key, name in ours.items()}, ignored


def converted_manifest(stage_1: bool, what: str) -> Manifest:
    """The manifest of weights that were trained elsewhere."""
    return Manifest(
        stage=(ImageTextModel if stage_1 else GenerativeModel).stage,
        recipe=f"converted from {what}",
        step=0,
        metrics={},
        parent=None,
        frozen_fingerprint="",
    )


def _fit_own(state: State, expected: Mapping[str, Tensor]) -> State:
    """Biases split, and the rows taken away that were added for the image token."""
    fitted = split_qkv_biases(state, expected)
    for name, tensor in fitted.items():
        rows = expected[name].shape[:1] if name in expected and name.startswith("language_model.") else ()
        if rows and tensor.shape[1:] == expected[name].shape[1:]:
            fitted[name] = tensor[: rows[0]]
    return fitted


def _read_side(folder: Path, state: State) -> tuple[State, Manifest] | None:
    """What an export wrote beside the weights, if it belongs to them."""
    if not (folder / SIDE / MANIFEST).is_file():
        return None
    extra, manifest = read_export(folder / SIDE)
    queries = extra.pop("query_tokens", torch.empty(0))
    if not torch.equal(queries, state.get("query_tokens", torch.empty(1))):
        _log.warning("%s: these weights were changed after the export, so %s is not used", folder, folder / SIDE)
        return None
    return extra, manifest
