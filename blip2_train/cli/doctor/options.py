"""The doctor's own settings, taken out of a command line that otherwise holds a recipe's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blip2_train.config.key_values import split_settings
from blip2_train.errors import ConfigError

SYNTAX = """\
  measure=<n>          steps that are trained to see how long one takes, until the first that ends after ten seconds
                       (20; none of models of more than a billion parameters on a CPU); 0 = none
  device_memory=<GiB>  memory of one device, where the run's devices are not on this machine"""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """How to examine."""

    measure: int | None = None
    """Optimiser steps at most; 0 = none; None = `USUAL_STEPS`, or none where one takes minutes."""
    device_memory: float | None = None
    """GiB; None = that of the device found here."""

    def __post_init__(self) -> None:
        if self.measure is not None and self.measure < 0:
            raise ConfigError(f"measure must be 0 or more steps, got {self.measure}")
        if self.device_memory is not None and not self.device_memory > 0:
            raise ConfigError(f"device_memory must be a positive number of GiB, got {self.device_memory:g}")


def split_options(arguments: Sequence[str]) -> tuple[DoctorOptions, list[str]]:
    """The doctor's options, and the arguments that belong to the recipe.

    Raises:
        ConfigError: if a value cannot be used.

    Example:
        >>> split_options(["experiment=demo_stage1", "measure=0"])[1]
        ['experiment=demo_stage1']
    """
    return split_settings(arguments, DoctorOptions)
