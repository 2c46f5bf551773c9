"""Reads PaddleNLP's copy of the released models, `model_state.pdparams`: a pickle of arrays under transformers' names.

Paddle keeps the weights of linear layers as (in, out), and bfloat16 as unsigned 16-bit integers.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, Blip2Config, OPTConfig, PretrainedConfig

from blip2_train.checkpoints.architecture import build_model
from blip2_train.checkpoints.convert.array_pickle import read_array_pickle
from blip2_train.checkpoints.convert.huggingface import converted_manifest, rename
from blip2_train.checkpoints.convert.huggingface_config import (
    describe_config,
    describe_processor,
    is_blip2_config,
    read_config,
)
from blip2_train.checkpoints.convert.key_map import HUGGING_FACE, PADDLE_OPT
from blip2_train.checkpoints.convert.qkv_bias import split_qkv_biases
from blip2_train.checkpoints.foreign_weights import SourceWeights, State
from blip2_train.errors import CheckpointMismatch
from blip2_train.from_transformers import load_config
from blip2_train.hub import find_hub

WEIGHTS = "model_state.pdparams"
_NOTES = "StructuredToParameterName@@"
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Second to last bytes of the first pickle of an old torch file."""
_LANGUAGE_MODELS = {2560: "facebook/opt-2.7b", 4096: "facebook/opt-6.7b"}
_HEAD = "language_model.lm_head.weight"


def locate_paddle(path: Path) -> Path | None:
    """The Paddle file at a path, or None."""
    if path.is_dir():
        return path / WEIGHTS if (path / WEIGHTS).is_file() else None
    if not path.is_file() or path.suffix == ".safetensors" or zipfile.is_zipfile(path):
        return None
    with open(path, "rb") as file:
        start = file.read(2 + len(_TORCH_MAGIC))
    return path if start[:1] == pickle.PROTO and start[2:] != _TORCH_MAGIC else None


def read_paddle(file: Path, location: str, language_model: str | None) -> SourceWeights:
    """Read a Paddle file.

    Args:
        file: The pickle; its folder may hold `config.json` (else it is one of the released models) and a tokenizer.
        location: The name that the user gave.
        language_model: Folder or hub id of the language model, whose configuration and tokenizer are read; None = the
            file's folder, or the released one.

    Raises:
        CheckpointMismatch: if it holds other things than arrays, or a key is unknown.
    """
    source = "Paddle Blip2ForConditionalGeneration"
    what = f"{source} {location}"
    theirs = {PADDLE_OPT.to_ours(key) or key: value for key, value in _tensors(read_array_pickle(file), what).items()}
    state, ignored = rename(theirs, HUGGING_FACE, what)
    has_config = is_blip2_config(file.parent)
    config = read_config(file.parent) if has_config else _released_config(state, what, language_model)
    description = describe_config(config, state, location)
    if "language" not in description:
        raise CheckpointMismatch(f"{what} is a retrieval model, which is not known in this format")
    own_tokenizer = (file.parent / "tokenizer_config.json").is_file()
    name = language_model or (str(file.parent) if own_tokenizer else config.text_config._name_or_path)
    description["language"] |= {"name": name, "end_token": "\n", "start_token": "</s>"}
    return SourceWeights(
        source=source,
        location=location,
        description=description,
        state=_as_torch(state, description),
        processor=describe_processor(file.parent, int(description["vision"]["image_size"])),
        manifest=converted_manifest(False, what),
        their_name=_their_name,
        fit=split_qkv_biases,
        ignored=ignored,
    )


def _tensors(content: Any, what: str) -> State:
    """Arrays by name as tensors, each taken out of `content`, so that none is held twice."""
    if not isinstance(content, dict):
        raise CheckpointMismatch(f"{what} is no mapping from names to arrays")
    content.pop(_NOTES, None)
    state = {}
    for key in list(content):
        value = content.pop(key)
        array = value[1] if isinstance(value, list) and len(value) == 2 else value  # (Paddle's name, array)
        if not isinstance(array, np.ndarray):
            raise CheckpointMismatch(f"{what}: {key} is no array")
        native = np.require(array, array.dtype.newbyteorder("="), "W")
        tensor = torch.from_numpy(native)
        state[str(key)] = tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor
    return state


def _as_torch(state: State, description: dict[str, Any]) -> State:
    """Weights of linear layers as (out, in)."""
    with torch.device("meta"):
        model = build_model(description)
    expected = model.state_dict()
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {_HEAD}
    if _HEAD in state and state[_HEAD].shape != expected[_HEAD].shape:  # PaddleNLP's own head is not turned
        linear.add(_HEAD)
    return {
        name: tensor.T.contiguous() if name in linear and tensor.ndim == 2 else tensor for name, tensor in state.items()
    }


def _released_config(state: State, what: str, language_model: str | None) -> Any:
    """The configuration of a file that has none beside it, by the sizes of its tensors."""
    decoder = "language_model.model.decoder"
    try:
        vocabulary, width = state[f"{decoder}.embed_tokens.weight"].shape
        text: PretrainedConfig = OPTConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=len(state[f"{decoder}.layers.0.fc1.bias"]),
            num_hidden_layers=len({name.split(".")[4] for name in state if name.startswith(f"{decoder}.layers.")}),
            num_attention_heads=32,
            max_position_embeddings=len(state[f"{decoder}.embed_positions.weight"]) - 2,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointMismatch(
            f"{what} is no BLIP-2 with OPT, and has no config.json beside it that describes it"
        ) from error
    if width in _LANGUAGE_MODELS:
        return Blip2Config(text_config=text.to_dict() | {"_name_or_path": _LANGUAGE_MODELS[width]})
    if language_model is None:
        raise CheckpointMismatch(
            f"{what} has a language model {width} wide, which is none of the release; put its config.json beside it"
        )
    find_hub(language_model)
    try:
        return Blip2Config(text_config=load_config(AutoConfig, language_model).to_dict())
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(f"the configuration of language model {language_model} cannot be read") from error


def _their_name(name: str) -> str | None:
    theirs = HUGGING_FACE.to_theirs(name)
    return PADDLE_OPT.to_theirs(theirs) or theirs if theirs else None
