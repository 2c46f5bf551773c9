"""How remote storage is read, and what becomes of shards that are damaged, there or on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blip2_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Settings of `data.storage`; nothing of them decides which samples are read, or in which order."""

    attempts: int = 5
    """Times that a request is made before it has failed."""
    first_pause: float = 0.5
    """Seconds before the second attempt, at most; each pause may be twice as long as the one before."""
    timeout: float = 60.0
    """Seconds that an answer may take."""
    bad_shards: Literal["skip", "stop"] = "skip"
    """What becomes of a shard that is missing, truncated or cannot be read: its samples are replaced by others of the
    source, counted and listed; or the run ends. Local shards are treated alike."""
    memory_mb: float = 720.0
    """Megabytes (10^6 bytes) of memory of a training process and its readers together, into which samples are fetched
    many in a request before they are read (with what the allocator keeps, about 1.4 times as much); 0 = every sample
    is a request. Not used with `cache`."""
    cache: str | None = None
    """Folder of this machine that keeps what was read, for all processes; None = nothing is kept."""
    cache_gb: float = 20.0
    """Gigabytes (10^9 bytes) that the folder may hold; what was not used for longest is removed."""
    read_ahead_mb: float = 8.0
    """Megabytes (10^6 bytes) that are read into the folder at a time: a sample with those that follow it."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"data.storage.attempts must be at least 1, got {self.attempts}")
        for name in ("timeout", "cache_gb", "read_ahead_mb"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"data.storage.{name} must be positive, got {getattr(self, name)}")
        for name in ("first_pause", "memory_mb"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"data.storage.{name} must be 0 or more, got {getattr(self, name)}")
        if self.bad_shards not in ("skip", "stop"):
            raise ConfigError(f"data.storage.bad_shards is skip or stop, got {self.bad_shards!r}")
        if self.read_ahead_mb > 1000 * self.cache_gb:
            raise ConfigError(
                f"data.storage.read_ahead_mb {self.read_ahead_mb:g} does not fit into a cache of {self.cache_gb:g} GB"
            )
