"""The description of a model as plain values: stored beside its weights, and used to build it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import blip2_train
from blip2_train.checkpoints.adapter_files import describe_adapters
from blip2_train.checkpoints.foreign_descriptions import family_of, without_own_choices
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import LanguageModelConfig, QFormerConfig, VisionConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel

_PACKAGED = "package:"
"""Stands for the folder of this package, so that an export of the demo can be read on another machine."""
_PACKAGE = str(Path(blip2_train.__file__).parent)


def describe_model(model: Blip2Model) -> dict[str, Any]:
    """The configurations that a model was built from."""
    parts: dict[str, Any] = {name: without_own_choices(asdict(config)) for name, config in model.configs().items()}
    if (family := model.vision_config.family) is not None:
        parts["vision"]["family"] = family
    if model.adapters is not None:
        parts["adapters"] = describe_adapters(model.adapters, model.is_encoder_decoder)
    questions = {"question_to_qformer": True} if model.question_to_qformer else {}
    return {"kind": type(model).__name__, **{name: _portable(part) for name, part in parts.items()}, **questions}


def build_model(description: Mapping[str, Any]) -> Blip2Model:
    """A model as described, without its weights.

    Raises:
        CheckpointMismatch: if the description is not one of this version.
    """
    try:
        vision = described_tower(description)
        qformer = QFormerConfig(**with_local_paths(description["qformer"]))
        language = description.get("language")
        if description["kind"] == GenerativeModel.__name__ and language is not None:
            reads = bool(description.get("question_to_qformer", False))
            return GenerativeModel(
                vision, qformer, LanguageModelConfig(**with_local_paths(language)), question_to_qformer=reads
            )
        if description["kind"] == ImageTextModel.__name__:
            return ImageTextModel(vision, qformer)
    except (KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"the model's description cannot be read ({error}); export the run again with this version"
        ) from error
    raise CheckpointMismatch(
        f"the model's description is of kind {description['kind']!r}, which is unknown to this version"
    )


def described_tower(description: Mapping[str, Any]) -> VisionConfig:
    """The configuration of a described model's tower, of the class of its family.

    Raises:
        CheckpointMismatch: if no imported module has that class.
    """
    values = with_local_paths(description["vision"])
    family = family_of(values, "the model's description")
    return family(**{key: value for key, value in values.items() if key != "family"})


def tower_details(image_size: int, overrides: Mapping[str, Any] | None) -> str:
    """What a tower's timm name leaves open, in words for a model card.

    Example:
        >>> tower_details(96, {"embed_dim": 128, "depth": 3})
        '96 pixels, embed_dim 128, depth 3'
    """
    return ", ".join([f"{image_size} pixels", *(f"{key} {value}" for key, value in (overrides or {}).items())])


def _portable(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.replace(_PACKAGE, _PACKAGED) if isinstance(v, str) else v for k, v in values.items()}


def with_local_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a description, with the paths that they have on this machine."""
    return {k: v.replace(_PACKAGED, _PACKAGE) if isinstance(v, str) else v for k, v in values.items()}
