"""Turns single attention kernels of torch off, for a device on which one of them is slow or wrong."""

from __future__ import annotations

from collections.abc import Sequence

from blip2_train.errors import ConfigError

KERNELS = ("cudnn", "flash", "efficient", "math")
"""What `scaled_dot_product_attention` chooses from, by shape, mask, precision and device."""


def check_kernels_off(names: Sequence[str], what: str) -> None:
    """Refuse names that are no kernels, and all of them together.

    Args:
        names: Some of `KERNELS`.
        what: The setting, for messages.

    Raises:
        ConfigError: naming the setting.
    """
    for name in names:
        if name not in KERNELS:
            raise ConfigError(f"{what}: {name!r} is no attention kernel; use some of {', '.join(KERNELS)}")
    if set(names) == set(KERNELS):
        raise ConfigError(f"{what} names all of {', '.join(KERNELS)}: no attention could be computed; leave one")


def turn_kernels_off(names: Sequence[str], what: str = "attention_kernels_off") -> None:
    """Make torch choose another kernel for attention from now on, in this process; whatever runs in it.

    Args:
        names: Some of `KERNELS`; empty = all stay as they are.
        what: The setting, for messages.

    Raises:
        ConfigError: naming the setting, if a name is unknown or none would be left.
    """
    check_kernels_off(names, what)
    import torch  # late: the options of commands are read without it

    switches = {
        "cudnn": torch.backends.cuda.enable_cudnn_sdp,
        "flash": torch.backends.cuda.enable_flash_sdp,
        "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
        "math": torch.backends.cuda.enable_math_sdp,
    }
    for name in names:
        switches[name](False)
