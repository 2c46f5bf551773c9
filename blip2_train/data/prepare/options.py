"""Options of the shards that are made, and of the samples in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blip2_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """All settings that determine the content of the shards, beside the source."""

    samples_per_shard: int = 10_000
    """Samples in every shard but the last."""
    min_side: int = 0
    """Smallest accepted length of an image's shorter side, pixels."""
    max_aspect_ratio: float | None = None
    """Largest accepted ratio of an image's longer to its shorter side; None = any."""
    duplicates: Literal["drop", "keep"] = "drop"
    """How an image is handled whose file equals that of an earlier usable sample byte for byte."""
    resize: int | None = None
    """Images with a larger shorter side are scaled down to it, pixels, and become JPEGs; None = bytes are copied."""
    quality: int = 95
    """Quality of those JPEGs."""

    def __post_init__(self) -> None:
        for name, least in (("samples_per_shard", 1), ("min_side", 0), ("max_aspect_ratio", 1), ("resize", 1)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be 1 … 100, got {self.quality}")
