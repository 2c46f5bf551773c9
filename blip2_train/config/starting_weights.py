"""The weights that a configuration starts from, before anything is loaded."""

from __future__ import annotations

import shlex
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from blip2_train.errors import ConfigError


def find_starting_weights(config: DictConfig) -> tuple[str | None, str | None]:
    """Where `init_from` and `init_text_from` are; None for what is not given.

    Tower, sizes and tokenizers follow from these weights. Without them, the recipe's own would be looked for in vain.

    Raises:
        ConfigError: if `last:` finds none, or the recipe reads real parts (`paths.real_parts`) that are not there.
        CheckpointMismatch: if there is no such file or folder, or the hub has none.
    """
    locations: list[str | None] = []
    for setting in ("init_from", "init_text_from"):
        named = config.get(setting)
        locations.append(None if named is None else _location(str(named), str(config.paths.output_dir), setting))
    _require_real_parts(config)
    return locations[0], locations[1]


def _location(named: str, output_dir: str, setting: str) -> str:
    from blip2_train.checkpoints.weight_sources import require_source  # loads transformers
    from blip2_train.training.earlier_runs import find_export

    location = find_export(named, output_dir, setting)
    require_source(location)
    return location


def _require_real_parts(config: DictConfig) -> None:
    """Refuse a recipe whose weights `scripts/real_parts.py` makes, where it has not."""
    keys = ["model.vision.weights", "model.language.name"]
    keys += ["tokenizer", "model.qformer.weights"] if config.get("init_from") is None else []  # else from there
    parts = config.paths.real_parts
    for path in (OmegaConf.select(config, key) for key in keys):
        if str(path).startswith(f"{parts}/") and not Path(str(path)).exists():
            raise ConfigError(
                f"experiment={config.experiment} reads real weights, and {path} is not there; fetch them with "
                f"`python scripts/real_parts.py {shlex.quote(parts)}`, or name their folder: paths.real_parts=<folder>"
            )
