"""Builds a model from a description and tensors by name, with no weight in memory twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from blip2_train.checkpoints.adapter_files import described_adapters
from blip2_train.checkpoints.adapters import attach_adapters
from blip2_train.checkpoints.architecture import build_model, describe_model
from blip2_train.checkpoints.convert.huggingface_config import plain_architecture
from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.foreign_weights import SourceWeights, State
from blip2_train.checkpoints.frozen_parts import fill_language_model, load_language_model, load_tower
from blip2_train.checkpoints.initial_weights import RANDOM
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule, why_names_differ
from blip2_train.data.batches.processor import Processor
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.freezing import FROZEN_PARTS
from blip2_train.models.quantization import QuantizedLinear, quantize_language_model


def assemble(source: SourceWeights, quantization: str = "none") -> tuple[Blip2Model, list[LoadReport]]:
    """Build the model of a description with the weights of its source; missing frozen parts come from their own files.

    The model is built on the meta device, and tensors are assigned to it as they are: those of a mapped file stay on
    disk until they are used.

    Args:
        source: Description and weights.
        quantization: `none`, `int8` or `int4` for the language model, layer by layer while it is loaded.

    Raises:
        CheckpointMismatch: naming the first weight that is missing, unexpected, or of another shape.
    """
    with torch.device("meta"):
        model = build_model(source.description)
    model.eval()
    expected = model.state_dict()
    state = _with_ties(model, source.fit(source.state, expected))
    elsewhere = tuple(f"{part}.*" for part in model.frozen_parts if part not in source.held)
    may_miss = (*elsewhere, *source.may_miss)
    _account_for(source, state, expected, may_miss)
    report = load_by_rule(model, state, LoadRule(what=source.what, may_miss=may_miss))
    fresh = tuple(name for name in report.fresh if name.split(".")[0] not in FROZEN_PARTS)
    reports = [LoadReport(what=report.what, loaded=report.loaded, fresh=fresh, ignored=source.ignored)]
    if model.language_config is not None:
        model.language_config = replace(model.language_config, quantization=quantization)
    _put_in(model, state, expected)
    if "vision_model.*" in elsewhere:
        reports.append(_tower_from_elsewhere(model, source.what))
    if "language_model.*" in elsewhere:
        _refuse_random(model.frozen_parts["language_model"], "language model", source.what)
        reports.append(load_language_model(model))
        _quantize(model)
    model.complete_from_meta()
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not left, f"no weights were put into {left}"
    if (chosen := described_adapters(source.description)) is not None:
        reports.append(attach_adapters(model, chosen, source.adapters, source.what))
        model.eval()
    return model, reports


def complete_manifest(manifest: Manifest, model: Blip2Model, processor: Processor) -> Manifest:
    """A manifest that describes model and processor, the sizes of the language model included."""
    description = describe_model(model)
    if model.text_config is not None:
        sizes = plain_architecture(model.text_config)
        description["language"] = {**description["language"], "architecture": sizes}
    return replace(manifest, architecture=description, processor=processor.describe())


def without_ties(state: Mapping[str, Tensor]) -> State:
    """The same weights, each only under the first of its names."""
    kept: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        kept.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), name)
    return {name: state[name] for name in kept.values()}


def _with_ties(model: nn.Module, state: State) -> State:
    """The state with every name of a tied weight of which it has one."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    filled = dict(state)
    for tied in names.values():
        present = next((name for name in tied if name in state), None)
        if present is not None:
            filled |= {name: state[present] for name in tied if name not in state}
    return filled


def _account_for(
    source: SourceWeights, state: State, expected: Mapping[str, Tensor], may_miss: tuple[str, ...]
) -> None:
    missing = [name for name in expected if name not in state and not any(fnmatchcase(name, p) for p in may_miss)]
    unknown = [name for name in state if name not in expected]
    for verb, names in (("lacks", missing), ("holds unexpected", unknown)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointMismatch(
                f"{source.what} {verb} {source.their_name(names[0]) or names[0]}{more}; "
                f"{why_names_differ(missing, unknown, expected, state)}"
            )
    for name in expected:
        if name in state and state[name].shape != expected[name].shape:
            raise CheckpointMismatch(
                f"{source.what}: {source.their_name(name) or name} has shape {tuple(state[name].shape)}, the model "
                f"needs {tuple(expected[name].shape)}"
            )


def _put_in(model: Blip2Model, state: State, expected: Mapping[str, Tensor]) -> None:
    prefix = "language_model."
    text = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if text:
        fill_language_model(model, text)
    rest = {name: tensor.to(expected[name].dtype) for name, tensor in state.items() if not name.startswith(prefix)}
    model.load_state_dict(rest, strict=False, assign=True)


def _quantize(model: Blip2Model) -> None:
    """Quantise a language model that was loaded whole."""
    assert model.language_config is not None
    quantization = model.language_config.quantization
    done = any(isinstance(module, QuantizedLinear) for module in model.language_model.modules())
    if quantization != "none" and not done:
        quantize_language_model(model.language_model, quantization)


def _tower_from_elsewhere(model: Blip2Model, what: str) -> LoadReport:
    _refuse_random(model.vision_config.weights, "vision tower", what)
    for buffer in model.vision_model.to_empty(device="cpu").buffers():
        buffer.zero_()
    return load_tower(model.vision_model, model.vision_config)


def _refuse_random(weights: str, part: str, what: str) -> None:
    if weights == RANDOM:
        raise CheckpointMismatch(
            f"{what} does not hold its {part}, whose weights were random: they cannot be restored; train with a "
            "pretrained one"
        )
