"""Adapters in files: a language model's in a folder of peft's own layout, a Q-Former's merged into its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from blip2_train.checkpoints.files import file_fingerprint, read_weights
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.adapted_layers import ADAPTER_NAME, is_adapter, plain_name
from blip2_train.models.adapters import lora_settings
from blip2_train.models.configs import AdapterConfig
from blip2_train.system.shared_files import share_as_usual

FOLDER = "adapter"
"""Inside an export."""
FILE = "adapter_model.safetensors"
_OURS, _THEIRS = "language_model.", "base_model.model."
_TASK = "task_type"
State = dict[str, Tensor]


def describe_adapters(config: AdapterConfig, encoder_decoder: bool) -> dict[str, Any]:
    """Settings of adapters as plain values, with what peft calls the kind of language model."""
    return {**asdict(config), _TASK: "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"}


def described_adapters(architecture: Mapping[str, Any]) -> AdapterConfig | None:
    """The settings that a model's description (`check_description`) holds; None if it has no adapters."""
    values = architecture.get("adapters")
    return None if values is None else AdapterConfig(**{key: values[key] for key in values if key != _TASK})


def merged_qformer(state: Mapping[str, Tensor], config: AdapterConfig) -> State:
    """Ordinary weights of a Q-Former: what its adapters have learnt is added to the weights of their layers.

    Args:
        state: Weights by name, with `….base_layer.weight` `(out, in)`, `….lora_A.default.weight` `(r, in)` and
            `….lora_B.default.weight` `(out, r)`.
        config: Of the adapters.
    """
    merged = {plain_name(name): tensor for name, tensor in state.items() if not is_adapter(name)}
    for name, down in state.items():
        layer, separator, _ = name.partition(f".lora_A.{ADAPTER_NAME}.")
        if separator:
            up = state[f"{layer}.lora_B.{ADAPTER_NAME}.weight"]
            merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + (up @ down) * (config.alpha / config.r)
    return merged


def write_adapter(folder: Path, state: Mapping[str, Tensor], architecture: Mapping[str, Any], base: str) -> str:
    """Write a language model's adapters so that `PeftModel.from_pretrained(language_model, folder)` reads them.

    Args:
        folder: Output folder; it is created.
        state: The adapters' weights by their names in a `GenerativeModel`.
        architecture: Description of that model.
        base: Folder or hub id of the language model, for peft's `Auto…` classes.

    Returns:
        SHA-256 of the file of weights.
    """
    config = described_adapters(architecture)
    assert config is not None
    lora_settings(
        config,
        task_type=architecture["adapters"][_TASK],
        base_model_name_or_path=base,
        inference_mode=True,
    ).save_pretrained(folder)
    theirs = {
        _THEIRS + name.removeprefix(_OURS).replace(f".{ADAPTER_NAME}.", "."): tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
    }
    save_file(theirs, folder / FILE, metadata={"format": "pt"})
    share_as_usual(folder / FILE)
    return file_fingerprint(folder / FILE)


def read_adapter(export: Path, sha256: str) -> State:
    """The adapters of an export, by their names in a `GenerativeModel`; nothing if it has none (`sha256` is empty).

    Raises:
        CheckpointMismatch: if they are not those that were written.
    """
    if not sha256:
        return {}
    file = export / FOLDER / FILE
    if not file.is_file() or file_fingerprint(file) != sha256:
        raise CheckpointMismatch(f"{file} is missing or not the file that was exported; export the run again")
    state = {}
    for name, tensor in read_weights(file).items():
        layer, _, kind = name.removeprefix(_THEIRS).rpartition(".lora_")
        state[f"{_OURS}{layer}.lora_{kind.replace('.', f'.{ADAPTER_NAME}.')}"] = tensor
    return state
