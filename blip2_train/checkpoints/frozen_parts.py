"""Weights of the frozen parts: a tower or a language model alone, or out of the file of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from blip2_train.checkpoints.convert import timm_towers
from blip2_train.checkpoints.foreign_weights import SourceWeights
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.checkpoints.position_embeddings import fit_positions
from blip2_train.checkpoints.weight_sources import find_weights, is_source
from blip2_train.errors import CheckpointMismatch
from blip2_train.from_transformers import load_model
from blip2_train.language_files import locate_language_model
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import VisionConfig
from blip2_train.models.dtypes import DTYPES
from blip2_train.models.freezing import FROZEN_PARTS
from blip2_train.models.language_model import freeze_language_model, language_model_architecture
from blip2_train.models.quantized_loading import loading_options
from blip2_train.models.vision_tower import VisionTower
from blip2_train.system.error_reasons import reason_of

VISION_MODEL, LANGUAGE_MODEL = FROZEN_PARTS


def load_tower(tower: VisionTower, config: VisionConfig) -> LoadReport:
    """Load a tower's weights, by timm's tag, from a file of a tower, or from a file or folder of a whole BLIP-2.

    Raises:
        ConfigError: for `weights: timm` without a tag.
        CheckpointMismatch: if weights cannot be read or do not fit.
    """
    if config.weights == "timm" or not is_source(config.weights):
        return timm_towers.load_tower(tower, config)
    source = find_weights(config.weights)
    _refuse_lack(source, VISION_MODEL, "model.vision.weights=<file of a tower, or timm>")
    prefix = f"{VISION_MODEL}."
    expected = {prefix + name: tensor for name, tensor in tower.state_dict().items()}
    state = fit_positions(source.fit(source.state, expected), tower)
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return load_by_rule(tower, own, LoadRule(what=f"vision tower of {source.what}"))


def load_language_model(model: Blip2Model, source: SourceWeights | None = None) -> LoadReport:
    """Replace the empty language model by the pretrained one, in its final precision, without a second copy in memory.

    Args:
        model: Whose language model is replaced.
        source: Weights of a whole model that hold it; None = those of `model.language.name`.

    Raises:
        CheckpointMismatch: if it cannot be read or fetched, or its sizes are not those of the recipe.
    """
    config = model.language_config
    assert config is not None
    if source is None and is_source(config.name):
        source = find_weights(config.name)
    if source is None:
        model.language_model = freeze_language_model(_from_transformers(model), config)
    else:
        fill_language_model(model, _language_weights(model, source))
    names = tuple(f"{LANGUAGE_MODEL}.{name}" for name in model.language_model.state_dict())
    what = f"language model {config.name}" if source is None else f"language model of {source.what}"
    return LoadReport(what=f"{what} ({config.dtype})", loaded=names, fresh=(), ignored=())


def fill_language_model(model: Blip2Model, state: Mapping[str, Tensor]) -> None:
    """Replace the language model by one with these weights, by the language model's own names, quantised if configured.

    Weights of a mapped file stay on disk until they are used.
    """
    config = model.language_config
    assert config is not None
    loaded = load_model(
        type(model.language_model),
        None,
        config=language_model_architecture(config),
        state_dict=dict(state),
        dtype=DTYPES[config.dtype],
        **loading_options(config.quantization),
    )
    model.language_model = freeze_language_model(loaded, config)


def _language_weights(model: Blip2Model, source: SourceWeights) -> dict[str, Tensor]:
    """Weights of the language model that a whole model's file holds, by the language model's own names."""
    _refuse_lack(source, LANGUAGE_MODEL, "model.language.name=<folder or id>")
    prefix = f"{LANGUAGE_MODEL}."
    expected = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    state = source.fit(source.state, expected)
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            raise CheckpointMismatch(
                f"{source.what}: {source.their_name(name) or name} has shape {tuple(state[name].shape)}, the model's "
                f"is {tuple(tensor.shape)}; the recipe's architecture is not that of the weights"
            )
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def refuse_other_language_model(model: Blip2Model, source: SourceWeights) -> None:
    """Refuse a source that holds another language model, for instance a merged one, than the run names.

    What the run exports could not be opened again.

    Raises:
        CheckpointMismatch: if it does.
    """
    config = model.language_config
    assert config is not None
    named = {f"{LANGUAGE_MODEL}.{name}": tensor for name, tensor in model.language_model.state_dict().items()}
    for name in named.keys() & source.state.keys():
        held = source.state[name].to(named[name].dtype)
        if held.shape == named[name].shape and not torch.equal(held, named[name]):
            raise CheckpointMismatch(
                f"{source.what} holds a language model of its own, which is not {config.name}; "
                "start from the export with adapters that it was merged from, or take both from it: "
                f"model.language.name={source.location}"
            )


def _refuse_lack(source: SourceWeights, part: str, fix: str) -> None:
    if part not in source.held:
        raise CheckpointMismatch(f"{source.what} holds no {part.replace('_', ' ')}; pass {fix}")


def _from_transformers(model: Blip2Model) -> Any:
    config = model.language_config
    assert config is not None
    architecture = language_model_architecture(config)
    family = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    location = locate_language_model(config.name)
    try:
        both: Any = load_model(
            family,
            location,
            config=architecture,
            dtype=DTYPES[config.dtype],
            output_loading_info=True,
            **loading_options(config.quantization),
        )
        loaded, info = both
    except CheckpointMismatch:
        raise
    except Exception as error:  # transformers raises whatever its readers raise
        raise CheckpointMismatch(
            f"language model {config.name!r} could not be loaded ({type(error).__name__}: "
            f"{reason_of(error)}); give model.language.name=<folder>, or check the network"
        ) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(problem):
            first = str(sorted(map(str, info[problem]))[0])
            kind = f"{len(info[problem])} {problem.replace('_', ' ')} (first: {first})"
            raise CheckpointMismatch(
                f"language model {config.name!r} has {kind}; the recipe's architecture is not that of the weights"
            )
    return loaded
