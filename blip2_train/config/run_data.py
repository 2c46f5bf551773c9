"""The data module of a configuration."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from blip2_train.config.compose import instantiate
from blip2_train.config.tower_normalisation import require_normalisation
from blip2_train.training.data_module import ImageTextDataModule


def make_data(config: DictConfig, **changes: Any) -> ImageTextDataModule:
    """The data module of a run, not set up.

    Args:
        config: From `compose`.
        changes: Keys of `data` with other values.

    Raises:
        ConfigError: if something cannot be used, or the normalisation of the tower is not known.
    """
    if config.data.get("access", "random") == "random":
        changes.pop("access", None)  # a data set of one's own may lack the key
    if config.data.get("features") is None and changes.get("features") is None:
        changes.pop("features", None)  # likewise
    if config.data.get("mean") is None or config.data.get("std") is None:
        require_normalisation(config)
    data: ImageTextDataModule = instantiate(OmegaConf.merge(config.data, changes))
    return data
