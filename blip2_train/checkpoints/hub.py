"""Folders of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from blip2_train.checkpoints.files import has_weights
from blip2_train.hub import fetch_files

_DESCRIPTION = ["*.json", "*.txt", "*.model", "*.yaml"]
_FILES = [*_DESCRIPTION, "*.safetensors"]


def looks_like_hub_id(name: str) -> bool:
    """Whether a name that is no local path has the form `owner/model`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and not name.endswith(
        (".pth", ".pt", ".safetensors", ".bin", ".pdparams")
    )


def is_on_this_machine(name: str) -> bool:
    """Whether a name is a path here, be something there or not, and no hub id; an empty one is neither."""
    return bool(name) and (Path(name).exists() or Path(name).is_absolute())


def fetch(name: str) -> Path:
    """The local copy of a hub repository's model files; downloads what is missing.

    Raises:
        CheckpointMismatch: if it is neither in the cache nor can be fetched.
    """
    folder = fetch_files(name, _FILES)
    return folder if has_weights(folder) else fetch_files(name, [*_FILES, "*.bin"])


def fetch_description(name: str) -> Path:
    """The local copy of a hub repository's small files: configuration and tokenizer, without the weights.

    Raises:
        CheckpointMismatch: if it is neither in the cache nor can be fetched.
    """
    return fetch_files(name, _DESCRIPTION)
