"""The weights that a configuration starts from, before anything is loaded."""

from __future__ import annotations

from omegaconf import DictConfig


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
        locations.append(None if named is None else _location(str(named), str(config.paths.output_dir), setting))
    return locations[0], locations[1]


def _location(named: str, output_dir: str, setting: str) -> str:
    from blip2_train.checkpoints.weight_sources import require_source  # loads transformers
    from blip2_train.training.earlier_runs import find_export

    location = find_export(named, output_dir, setting)
    require_source(location)
    return location
