"""Reading weight files, never as an arbitrary pickle."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from blip2_train.errors import CheckpointMismatch

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.pt`, `.pth` or `.bin` file, or of a folder that holds `model.safetensors`.

    Raises:
        CheckpointMismatch: if there is no such file, it cannot be read, or it holds anything but tensors.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
        if not found:
            raise CheckpointMismatch(
                f"{path} holds none of {', '.join(WEIGHT_FILES)}; give the folder that has the weights"
            )
        path = found[0]
    if not path.is_file():
        raise CheckpointMismatch(f"there is no weight file {path}; check the path, or say weights: random")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:150]
        raise CheckpointMismatch(
            f"{path} cannot be read as weights ({reason}); the file is damaged or of another kind"
        ) from error
    state = state.get("model", state.get("state_dict", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointMismatch(f"{path} does not hold a plain dictionary of tensors; export the weights again")
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


def read_training_state(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a training run, its tensors left on disk until they are used.

    Raises:
        CheckpointMismatch: if it is missing, cut short, or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointMismatch(
            f"checkpoint {path} cannot be read ({str(error).splitlines()[0][:150]}); resume from an earlier one"
        ) from error
    if not isinstance(state, dict) or "blip2_train" not in state:
        raise CheckpointMismatch(f"{path} is no checkpoint of a blip2_train run; foreign weights go by init_from")
    return state
