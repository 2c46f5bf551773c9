"""A composed configuration and what the command line set in it, and whether weights have a say in the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

import blip2_train
from blip2_train.errors import ConfigError

RANDOM = "random"
"""The value of `model.qformer.weights` that names no weights."""
_WEIGHED = ("model.vision", "model.language", "model.qformer.weights", "tokenizer")
"""Keys that settle which weights there are; what lies below them counts too."""
SHIPPED_BERT = Path(blip2_train.__file__).parent / "assets" / "demo" / "bert"
"""The BERT of the emoji scenes, from which the Q-Formers of its recipes start."""
SHIPPED_SIZES = {
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 4,
    "intermediate_size": 512,
    "max_positions": 64,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "vocab_size": 691,
}
"""What its files say, with which a configuration can be printed before transformers is loaded."""


def follows_weights(config: DictConfig, given: frozenset[str], option: Mapping[str, Any]) -> bool:
    """Whether `fit_to_weights` has anything to do; if not, nothing that reads weights has to be loaded.

    Args:
        config: Composed, with interpolations.
        given: Full paths of the keys that the command line set.
        option: From `model_of_option`, before the command line.
    """
    settings = Settings(config, given)
    if settings.get("init_from") is not None or settings.get("init_text_from") is not None:
        return True
    if any(key.startswith(f"{path}.") or path.startswith(key) for path in given for key in _WEIGHED):
        return True
    if settings.get("model.language") != (option.get("language") or None):
        return True
    weights = settings.get("model.qformer.weights")
    if weights == str(SHIPPED_BERT):
        return any(settings.get(f"model.qformer.{key}") != value for key, value in SHIPPED_SIZES.items())
    return not (weights in (None, RANDOM) or (isinstance(weights, str) and not Path(weights).expanduser().is_dir()))


def model_of_option(config: DictConfig) -> dict[str, Any]:
    """The name of the tower, and the language model, as in recipe and options alone."""
    settings = Settings(config, frozenset())
    return {"vision": {"name": settings.get("model.vision.name")}, "language": settings.get("model.language") or {}}


def given_paths(overrides: Sequence[Override]) -> frozenset[str]:
    """Full paths of the keys that a command line sets; of a mapping, which is merged into the former, those inside."""

    def paths(key: str, value: Any) -> list[str]:
        if not isinstance(value, dict) or not value:
            return [key]
        return [path for name, inner in value.items() for path in paths(f"{key}.{name}", inner)]

    return frozenset(path for override in overrides for path in paths(override.key_or_group, override.value()))


@dataclass
class Settings:
    """A composed configuration, and what the command line set in it."""

    config: DictConfig
    given: frozenset[str]

    def is_given(self, key: str) -> bool:
        """Whether the command line set the key, or something that it lies in."""
        return any(key == path or key.startswith(f"{path}.") for path in self.given)

    def get(self, key: str) -> Any:
        """A value, interpolations resolved, mappings and lists as plain Python; None if there is none."""
        value = OmegaConf.select(self.config, key, throw_on_missing=False)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

    def put(self, key: str, value: Any) -> None:
        """Give a key a value; what the command line set of it, or below it, stays."""
        if self.is_given(key):
            return
        kept = {path: self.get(path) for path in self.given if path.startswith(f"{key}.")}
        with open_dict(self.config):
            OmegaConf.update(self.config, key, {} if kept and value is None else value, merge=False, force_add=True)
            for path, own in kept.items():
                OmegaConf.update(self.config, path, own, force_add=True)

    def follow(self, key: str, value: Any, what: str) -> None:
        """Give a key the value that weights have.

        Raises:
            ConfigError: if the command line gave it, or something below it, another.
        """
        theirs = {key: value} if self.is_given(key) else {}
        if isinstance(value, Mapping):
            below = (path.removeprefix(f"{key}.") for path in self.given if path.startswith(f"{key}."))
            theirs |= {f"{key}.{name}": value.get(name) for name in below}
        for path, their in theirs.items():
            if plain(own := self.get(path)) != plain(their):
                raise ConfigError(
                    f"{path}={plain(own)} contradicts {what}, which has {plain(their)}: leave {path} out, or start "
                    "from other weights"
                )
        self.put(key, value)


def plain(value: Any) -> Any:
    """A value as YAML holds it, an empty mapping like none."""
    if isinstance(value, tuple):
        return list(value)
    return None if value == {} else value
