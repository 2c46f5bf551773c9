"""What stored features depend on, kept with them and compared with the recipe that reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from blip2_train.errors import ConfigError

VERSION = 1
"""Version of the stored files; increased when the same settings give others."""
_EVALUATION = ("image_size", "mean", "std")
"""Settings of the transform that the crop of evaluation depends on; those of training depend on all."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """The tower, the transform, and how the features are stored.

    Every field is a plain value, as JSON holds it.
    """

    version: int = VERSION
    tower: dict[str, Any]
    """`name`, `dropped_blocks`, `overrides`, `family` and `dtype` of the tower."""
    tower_sha256: str
    """Of its weights, as checkpoints of stage 1 state it."""
    transform: dict[str, Any]
    """`image_size`, `mean`, `std`, and how training crops are drawn and decoded."""
    crops: int
    """Training crops of each image; 0 = only the crop of evaluation."""
    bits: int
    seed: int
    """Of the training crops."""
    patches: int
    """Patches with prefix tokens."""
    width: int
    """Width of the tower."""
    images_per_shard: int
    pillow: str
    """Version of the program that read the images."""
    sources: dict[str, str] = field(default_factory=dict)
    """Fingerprint of each source, by name."""

    def difference(self, earlier: Mapping[str, Any]) -> str | None:
        """A sentence about the first setting that differs from earlier ones; None if none does."""
        for name, value in asdict(self).items():
            if (before := earlier.get(name)) != value:
                return f"{name} {_short(before)}, now it is {_short(value)}"
        return None

    def identity(self) -> str:
        """A short text that changes when the features of an image could."""
        values = {name: value for name, value in asdict(self).items() if name not in ("sources", "images_per_shard")}
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()

    def check_transform(self, transform: Mapping[str, Any], folder: object, evaluation: bool = False) -> None:
        """Refuse a run that makes other pixel values of an image.

        Args:
            transform: Its settings.
            folder: Folder of the features, for messages.
            evaluation: Whether only crops of evaluation are read.

        Raises:
            ConfigError: naming the first setting that differs.
        """
        for name in _EVALUATION if evaluation or not self.crops else transform:
            stored = self.transform.get(name)
            if stored != transform[name]:
                raise ConfigError(
                    f"features {folder} were written with {name} {_short(stored)}, here it is "
                    f"{_short(transform[name])}; set it to that, or write the features anew into another folder"
                )

    def check_tower(self, tower: Mapping[str, Any], sha256: str, folder: object) -> None:
        """Refuse a model with another tower.

        Args:
            tower: As the field of that name.
            sha256: Of the weights.
            folder: Folder of the features, for messages.

        Raises:
            ConfigError: naming the first setting that differs.
        """
        for name, value in {**tower, "weights (SHA-256)": sha256[:16]}.items():
            stored = self.tower_sha256[:16] if name not in tower else self.tower.get(name)
            if stored != value:
                raise ConfigError(
                    f"features {folder} are of another vision tower: its {name} is {_short(stored)}, that of "
                    f"this model {_short(value)}; take that tower, or write the features anew into another folder"
                )


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
