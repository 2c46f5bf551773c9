"""What a file of features says of itself: which model computed them, and the checksums of its arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from blip2_train.evaluation.inference import Blip2

RECORD = "index"
"""Name of the record in the file: an array of one text in `.npz`, an entry of the metadata in `.safetensors`."""


@dataclass(frozen=True, kw_only=True)
class IndexRecord:
    """The description of a file of features, stored in it."""

    model: str
    """Fingerprint of the model, see `model_fingerprint`."""
    source: str
    """Its origin, for people."""
    sha256: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each array's bytes, and of each list of names."""
    version: int = 1

    def as_json(self) -> str:
        """The record as text."""
        return json.dumps(asdict(self))


def names_hash(names: Sequence[str]) -> str:
    """SHA-256 of names, in order."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def model_fingerprint(model: Blip2) -> str:
    """SHA-256 of all that decides a model's features: its weights, and how its processor reads images and texts.

    Floats count rounded to bfloat16, so that a model of published weights in float32, float16 or bfloat16 is one and
    the same; in 8 bits it is another.
    """
    digest = hashlib.sha256(json.dumps(model.processor.describe() | {"prompt": ""}).encode())
    state = model.network.state_dict()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor) and not name.startswith("language_model."):
            plain = (value.bfloat16() if value.is_floating_point() else value).detach().cpu().contiguous()
            digest.update(f"{name}{tuple(plain.shape)}{plain.dtype}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
