"""Devices by their names."""

from __future__ import annotations

import torch

from blip2_train.errors import ConfigError


def find_device(name: str | int | torch.device | None) -> torch.device:
    """The device of that name; None or `auto` = a GPU if there is one, a number = that GPU.

    Raises:
        ConfigError: if there is no such device here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name is None or name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    name = f"cuda:{name}" if isinstance(name, int) else str(name)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:<number> or mps") from None
    here = {"cpu": True, "mps": mps, "cuda": cuda and (device.index or 0) < torch.cuda.device_count()}
    if not here.get(device.type, False):
        raise ConfigError(f"device {name!r} is not there on this machine; use auto or cpu")
    return device
