"""Folders of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from blip2_train.checkpoints.files import has_weights
from blip2_train.errors import CheckpointMismatch

_FILES = ["*.json", "*.txt", "*.model", "*.yaml", "*.safetensors"]


def looks_like_hub_id(name: str) -> bool:
    """Whether a name that is no local path has the form `owner/model`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and not name.endswith(
        (".pth", ".pt", ".safetensors", ".bin", ".pdparams")
    )


def fetch(name: str) -> Path:
    """The local copy of a hub repository's model files; downloads what is missing, unless HF_HUB_OFFLINE=1.

    Raises:
        CheckpointMismatch: if it is neither in the cache nor can be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES))
        if not has_weights(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*_FILES, "*.bin"]))
    except Exception as error:  # the hub's client raises whatever its transport raises
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        raise CheckpointMismatch(
            f"{name} is no local path, and as a hub id it could not be fetched ({type(error).__name__}"
            f"{', HF_HUB_OFFLINE is set' if offline else ''}); check the name and the network, or give a local folder"
        ) from error
    return folder
