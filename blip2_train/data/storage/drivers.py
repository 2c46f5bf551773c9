"""The file systems of fsspec: connected once per process, with a timeout for each call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.asyn import sync

from blip2_train.errors import ConfigError
from blip2_train.system.extras import install

_OWN_OPTIONS = {"s3": {"config_kwargs": {"retries": {"total_max_attempts": 1}}}}
"""Options with which drivers do not retry on their own."""
_DRIVERS = {"s3": lambda: install("s3fs"), "gs": lambda: "pip install gcsfs"}
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")


def connected(url: str) -> Any:
    """The file system of an address; the driver takes keys and server from the environment.

    Raises:
        ConfigError: if there is no driver for its protocol.
    """
    return _connected(url.partition("://")[0], os.getpid())


@lru_cache
def _connected(protocol: str, process: int) -> Any:
    """The file system of a protocol, for one process: connections do not survive a fork."""
    own = _OWN_OPTIONS.get(protocol, {})
    try:
        system = fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **own)
    except ImportError as error:
        advice = _DRIVERS.get(protocol, lambda: "install what it names")()
        raise ConfigError(f"{protocol}:// cannot be reached, its driver is not installed ({error}): {advice}") from None
    except ValueError as error:
        raise ConfigError(f"{protocol}:// cannot be reached ({error}); use s3://, gs:// or a folder") from None
    if hasattr(system, "retries"):
        system.retries = 1
    return system


def call(system: Any, what: str, *values: Any, timeout: float, **named: Any) -> Any:
    """Call a method of a file system, with a timeout in seconds where the driver can be interrupted."""
    if system.async_impl:
        return sync(system.loop, getattr(system, f"_{what}"), *values, timeout=timeout, **named)
    return getattr(system, what)(*values, **named)


def version(entry: Mapping[str, Any]) -> str:
    """The part of a file's entry in a listing that changes with its content."""
    return next((str(entry[name]) for name in _VERSIONS if entry.get(name)), "")
