"""The notes of a training checkpoint about its run, as plain typed values: none of them is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from torch import Tensor

from blip2_train.checkpoints.export import Manifest, checked_manifest
from blip2_train.checkpoints.files import only_tensors
from blip2_train.config.moved_targets import current_target
from blip2_train.data.batches.answer_collate import load_answer_collator
from blip2_train.data.batches.collate import load_image_text_collator
from blip2_train.data.batches.generation_collate import load_decoder_only_collator, load_encoder_decoder_collator
from blip2_train.errors import CheckpointMismatch
from blip2_train.system.records import Count, JsonObject, check_record, parse_yaml

_FIX = "export another checkpoint of the run"
_TARGET = "_target_"
_COLLATORS: dict[str, Callable[..., Any]] = {
    f"{load.__module__}.{load.__name__}": load
    for load in (
        load_image_text_collator,
        load_decoder_only_collator,
        load_encoder_decoder_collator,
        load_answer_collator,
    )
}
"""Everything that a checkpoint can have made: this project's collators."""


class _Notes(msgspec.Struct, kw_only=True):
    config: str
    about: JsonObject
    parent: str | None
    frozen_fingerprint: str
    scores: dict[str, float] = {}


class _Checkpoint(msgspec.Struct, kw_only=True):
    global_step: Count
    blip2_train: _Notes


class _Config(msgspec.Struct, kw_only=True):
    experiment: str
    collator: JsonObject


class CheckpointParts(msgspec.Struct, frozen=True, kw_only=True):
    """What an export is made of."""

    weights: dict[str, Tensor]
    """Trained weights by their name in the model."""
    config: str
    """Configuration of the run, as YAML text."""
    tokenizer: Any
    manifest: Manifest


def checkpoint_parts(state: Mapping[str, Any], file: Path) -> CheckpointParts:
    """Take a checkpoint apart.

    Args:
        state: What `read_training_state` gives.
        file: Its file, for the manifest and for messages.

    Raises:
        CheckpointMismatch: naming the file and what is missing, of the wrong type, or not of this project.
    """
    values = {key: state[key] for key in ("global_step", "blip2_train") if key in state}
    checkpoint = check_record(values, _Checkpoint, file, _FIX)
    notes = checkpoint.blip2_train
    config = _config(notes.config, file)
    if (clash := notes.about.keys() - {"stage", "architecture", "processor"}) != set():
        raise CheckpointMismatch(f"{file} cannot be read (blip2_train.about: unknown field {min(clash)!r}); {_FIX}")
    manifest = checked_manifest(
        {
            **notes.about,
            "recipe": config.experiment,
            "step": checkpoint.global_step,
            "checkpoint": file.name,
            "metrics": {f"val/{name}": value for name, value in notes.scores.items() if name != "step"},
            "parent": notes.parent,
            "frozen_fingerprint": notes.frozen_fingerprint,
        },
        file,
    )
    if "state_dict" not in state:
        raise CheckpointMismatch(f"{file} holds no weights (state_dict is missing); {_FIX}")
    weights = only_tensors(state["state_dict"], file)
    return CheckpointParts(
        weights={str(name).removeprefix("model."): tensor for name, tensor in weights.items()},
        config=notes.config,
        tokenizer=_collator(config.collator, file).tokenizer,
        manifest=manifest,
    )


def _config(text: str, file: Path) -> _Config:
    what = f"{file}: its configuration"
    return check_record(parse_yaml(text, what, _FIX), _Config, what, _FIX)


def _collator(values: JsonObject, file: Path) -> Any:
    """What one of the collators' constructors makes of plain values, all of which are arguments of its own."""
    what = f"{file}: its configuration: collator"
    target = current_target(values.get(_TARGET))
    if not isinstance(target, str) or target not in _COLLATORS:
        raise CheckpointMismatch(
            f"{what}: {_TARGET} is {target!r}, none of this project's own collators, and nothing else is made of a "
            "checkpoint; the run itself writes an export when it ends"
        )
    load = _COLLATORS[target]
    arguments = {key: value for key, value in values.items() if key != _TARGET}
    check_record(arguments, _arguments_of(load), what, _FIX, closed=True)
    return load(**arguments)


def _arguments_of(load: Callable[..., Any]) -> type[msgspec.Struct]:
    """The arguments of a function, with their types, as a record."""
    hints = get_type_hints(load)
    fields = [
        (name, hints[name]) if parameter.default is parameter.empty else (name, hints[name], parameter.default)
        for name, parameter in inspect.signature(load).parameters.items()
    ]
    return msgspec.defstruct("Arguments", fields, kw_only=True)
