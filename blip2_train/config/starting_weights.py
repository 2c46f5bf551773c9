"""The weights that a configuration starts from, before anything is loaded."""

from __future__ import annotations

from omegaconf import DictConfig

from blip2_train.checkpoints.weight_sources import require_source
from blip2_train.training.earlier_runs import find_export


def find_starting_weights(config: DictConfig) -> tuple[str | None, str | None]:
    """Where `init_from` and `init_text_from` are; None for what is not given.

    Tower, sizes and tokenizers follow from these weights. Without them, the recipe's own would be looked for in vain.

    Raises:
        ConfigError: if `last:` finds none.
        CheckpointMismatch: if there is no such file or folder, or the hub has none.
    """
    locations: list[str | None] = []
    for setting in ("init_from", "init_text_from"):
        named = config.get(setting)
        location = None if named is None else find_export(str(named), str(config.paths.output_dir), setting)
        if location is not None:
            require_source(location)
        locations.append(location)
    return locations[0], locations[1]
