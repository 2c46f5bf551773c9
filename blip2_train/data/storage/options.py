"""How remote storage is read, and how damaged shards are handled, remote and local ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blip2_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Settings of `data.storage`; none of them changes which samples are read, or in which order."""

    attempts: int = 5
    """Attempts of a request before it fails."""
    first_pause: float = 0.5
    """Longest pause before the second attempt, seconds; it doubles with each further attempt."""
    timeout: float = 60.0
    """Timeout of a request, seconds."""
    bad_shards: Literal["skip", "stop"] = "skip"
    """How missing, truncated and unreadable shards are handled, also local ones: `skip` = their samples are replaced by
    others of the source, counted and listed; `stop` = the run ends."""
    memory_mb: float = 720.0
    """Megabytes (10^6 bytes) of memory of a training process and its readers together, for samples that are fetched in
    advance, many per request (with the allocator's overhead about 1.4 times as much); 0 = one request per sample. Not
    used with `cache`."""
    cache: str | None = None
    """Local cache folder, shared by all processes; None = no cache."""
    cache_gb: float = 20.0
    """Size limit of the folder, gigabytes (10^9 bytes); the least recently used blocks are removed."""
    read_ahead_mb: float = 8.0
    """Size of a block of the cache, megabytes (10^6 bytes): a sample is read with those that follow it."""

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
