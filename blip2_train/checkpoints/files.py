"""Reading weight files, never as an arbitrary pickle."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.error_reasons import is_refused_pickle, reason_of
from blip2_train.system.records import read_record

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_READABLE = (".safetensors", ".pt", ".pth", ".bin")
_OTHER_KINDS = {
    "adapter_model.safetensors": "weights of a peft adapter",
    ".onnx": "an ONNX graph",
    ".gguf": "a GGUF file",
    ".h5": "weights of TensorFlow",
    ".msgpack": "weights of Flax",
    ".ckpt.index": "weights of TensorFlow 1",
}
"""Ends of file names by which a folder's weights are named that cannot be read."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.pt`, `.pth` or `.bin` file, or of a folder with `model.safetensors` or its shards.

    They stay on disk until they are used, where the format allows it.

    Raises:
        CheckpointMismatch: if there is no such file, a shard is missing, it cannot be read, or it holds anything but
            tensors.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise CheckpointMismatch(f"there is no weight file {path}; check the path, or set weights: random")
    state = read_file(path)
    state = state.get("model", state.get("state_dict", state)) if isinstance(state, dict) else state
    return only_tensors(state, path)


def read_file(path: Path) -> Any:
    """The content of a weight file: tensors by name, or the plain values and tensors of a `torch.save`.

    Raises:
        CheckpointMismatch: if it cannot be read, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the readers raise whatever a file of another kind leads them to
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointMismatch:
    if is_refused_pickle(error):
        return CheckpointMismatch(f"{path} is refused: {reason_of(error)}; get the weights alone, as safetensors")
    return CheckpointMismatch(
        f"{path} cannot be read as weights ({reason_of(error)}); the file is damaged, cut short, or of another kind"
    )


def weight_names(path: str | Path) -> list[str]:
    """Names of what `read_weights` would read; of safetensors files only the headers are read.

    Raises:
        CheckpointMismatch: as `read_weights`.
    """
    path = Path(path)
    if path.is_dir():
        index = path / f"{WEIGHT_FILES[0]}.index.json"
        whole = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
        return list(read_weights(path)) if whole is None and not index.is_file() else _names(whole or index)
    return _names(path)


def _names(file: Path) -> list[str]:
    if file.suffix == ".json":
        return list(_shards(file))
    if file.suffix != ".safetensors":
        return list(read_weights(file))
    try:
        with safe_open(file, framework="pt") as content:
            return list(content.keys())
    except Exception as error:  # the reader raises whatever a file of another kind leads it to
        raise _unreadable(file, error) from error


def only_tensors(state: Any, path: str | Path) -> dict[str, Tensor]:
    """The same mapping, if it is one from names to tensors.

    Raises:
        CheckpointMismatch: if it is anything else.
    """
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointMismatch(f"{path} does not hold a plain dictionary of tensors; export the weights again")
    return state


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a weight file, or an index of shards, under a name that `read_weights` knows."""
    return any((folder / name).is_file() or (folder / f"{name}.index.json").is_file() for name in WEIGHT_FILES)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return read_weights(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise CheckpointMismatch(f"{folder} holds none of {', '.join(WEIGHT_FILES)}{_instead(folder)}")


def _instead(folder: Path) -> str:
    """The other weights in a folder without a known name, and the remedy."""
    names = sorted(str(path.relative_to(folder)) for path in [*folder.glob("*"), *folder.glob("*/*")] if path.is_file())
    for suffix, kind in _OTHER_KINDS.items():
        if other := next((name for name in names if name.endswith(suffix)), None):
            return f", but {kind} ({other}), which is not read here; give the model as published in safetensors"
    if other := next((name for name in names if "/" not in name and Path(name).suffix in _READABLE), None):
        return f", but {other}; give the path of that file, if these are the weights"
    return "; give the folder that has the weights"


class _ShardIndex(msgspec.Struct):
    weight_map: dict[str, str]


def _shards(index: Path) -> dict[str, str]:
    """File of each weight, from an index of shards."""
    shard_of = read_record(index, _ShardIndex, "download it again").weight_map
    if outside := next((shard for shard in shard_of.values() if Path(shard).name != shard), None):
        raise CheckpointMismatch(f"{index} names {outside!r}, which is no file beside it; download it again")
    return shard_of


def _read_shards(index: Path) -> dict[str, Tensor]:
    shard_of = _shards(index)
    shards = sorted(set(shard_of.values()))
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise CheckpointMismatch(
            f"{index.parent} lacks {absent[0]}, {len(absent)} of the {len(shards)} shards that {index.name} names; "
            "the download is not complete"
        )
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= read_weights(index.parent / shard)
    lost = [key for key in shard_of if key not in state]
    if lost:
        raise CheckpointMismatch(f"{index.parent / shard_of[lost[0]]} lacks {lost[0]}; download it again")
    return state


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of tensors, in order of name; an empty string for none."""
    if not tensors:
        return ""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()


def file_fingerprint(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The trained weights of a checkpoint, by their name in the model; those of the objective are left out."""
    weights = state["state_dict"].items()
    return {name.removeprefix("model."): tensor for name, tensor in weights if not name.startswith("objective.")}
