"""Exports: a folder with trained weights that others can load, and everything needed to understand it.

`model.safetensors` (what was trained), `adapter/` (adapters of a language model, in peft's layout), `config.yaml` (the
resolved configuration), the tokenizer, and `manifest.json` (stage, step, scores, what the run started from).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from blip2_train import __version__
from blip2_train.checkpoints import adapter_files
from blip2_train.checkpoints.architecture import with_local_paths
from blip2_train.checkpoints.files import file_fingerprint, read_weights
from blip2_train.checkpoints.foreign_descriptions import check_description, check_processor
from blip2_train.errors import CheckpointMismatch, DamagedFile
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.system.atomic_folder import clear_leftovers, replace_folder
from blip2_train.system.atomic_write import without_checksum, write_atomically, write_checked
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.records import JsonObject, check_record, read_record
from blip2_train.system.shared_files import share_as_usual

_FIX = "export the run again"
WEIGHTS, CONFIG, MANIFEST, TOKENIZER = "model.safetensors", "config.yaml", "manifest.json", "tokenizer"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of an export, stored in it."""

    stage: str
    """`stage1`, `stage2`, …"""
    recipe: str
    step: int
    """Optimiser steps of training."""
    metrics: dict[str, float]
    """Scores of the held-out samples with these weights."""
    parent: str | None
    """SHA-256 of the weights the run started from, or None."""
    frozen_fingerprint: str
    """SHA-256 of the frozen weights the trained ones belong to."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """The model (`describe_model`)."""
    processor: dict[str, Any] = field(default_factory=dict)
    """Its processor (`Processor.describe`)."""
    checkpoint: str = ""
    """Name of the checkpoint that the weights come from; empty = the end of the run."""
    version: str = __version__
    sha256: str = ""
    """Of `model.safetensors`; filled in by `write_export`."""
    adapter_sha256: str = ""
    """Of the adapters' weights, or empty; filled in by `write_export`."""
    saved_at: float = 0.0
    """Seconds since 1970; filled in by `write_export`."""


def write_export(folder: Path, state: Mapping[str, Tensor], config: str, tokenizer: Any, manifest: Manifest) -> Path:
    """Write an export; an older one of the same name is replaced only once the new one is complete.

    A language model's adapters go to a folder of their own, a Q-Former's are merged into its weights.

    Args:
        folder: Output folder.
        state: Trained weights by name, adapters among them.
        config: Resolved configuration as YAML text.
        tokenizer: Anything with transformers' `save_pretrained`.
        manifest: Manifest of the export.

    Returns:
        The folder.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    clear_leftovers(folder)
    unfinished.mkdir(parents=True)
    try:
        _write_files(unfinished, state, config, tokenizer, manifest)
        replace_folder(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _write_files(folder: Path, state: Mapping[str, Tensor], config: str, tokenizer: Any, manifest: Manifest) -> None:
    chosen = adapter_files.described_adapters(manifest.architecture)
    if chosen is not None and chosen.target == "qformer":
        state = adapter_files.merged_qformer(state, chosen)
        plain = {key: value for key, value in manifest.architecture.items() if key != "adapters"}
        manifest = replace(manifest, architecture=plain)
    beside = {name: tensor for name, tensor in state.items() if is_adapter(name)}
    save_file(_separate({n: t for n, t in state.items() if n not in beside}), folder / WEIGHTS)
    share_as_usual(folder / WEIGHTS)
    adapter_folder = folder / adapter_files.FOLDER
    language = with_local_paths(manifest.architecture.get("language") or {})
    sha256 = (
        adapter_files.write_adapter(adapter_folder, beside, manifest.architecture, language["name"]) if beside else ""
    )
    write_atomically(folder / CONFIG, config)
    tokenizer.save_pretrained(folder / TOKENIZER)
    written = {"sha256": file_fingerprint(folder / WEIGHTS), "adapter_sha256": sha256, "saved_at": time.time()}
    write_checked(folder / MANIFEST, {**manifest.__dict__, **written}, indent=2)  # last: with it the export is whole


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU; only those that share memory with another are copied."""
    separate: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in state.items():
        separate[name] = tensor.detach().cpu().contiguous()
        if separate[name].data_ptr() in known:
            separate[name] = separate[name].clone()
        known.add(separate[name].data_ptr())
    return separate


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export.

    Raises:
        CheckpointMismatch: if the folder is no export, or as `checked_manifest`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointMismatch(
            f"{folder} is no export (it has no {MANIFEST}); give the export folder of a finished run"
        )
    values = read_record(path, JsonObject, _FIX)
    try:
        return checked_manifest(without_checksum(values, path, _FIX), path)
    except DamagedFile as error:
        raise CheckpointMismatch(str(error)) from error


def checked_manifest(values: Any, what: object) -> Manifest:
    """A manifest of plain values, whoever wrote them.

    Raises:
        CheckpointMismatch: naming the file (`what`) and the field that is missing, of the wrong type, or must not be
            set (`check_description`).
    """
    manifest = check_record(values, Manifest, what, _FIX, closed=True)
    architecture = check_description(manifest.architecture, what)
    return replace(manifest, architecture=architecture, processor=check_processor(manifest.processor, what))


def read_config_text(folder: Path) -> str:
    """The configuration of an export's run, as YAML text that nobody has looked into; empty if there is none.

    Raises:
        CheckpointMismatch: if it cannot be read.
    """
    path = folder / CONFIG
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointMismatch(f"{path} cannot be read ({reason_of(error)}); {_FIX}") from error


def exported_at(manifest: Path) -> float:
    """When the export of a manifest was written, in seconds since 1970, as it states; else when the file changed."""
    try:
        return read_manifest(manifest.parent).saved_at or manifest.stat().st_mtime
    except CheckpointMismatch:
        return manifest.stat().st_mtime


def read_export(folder: Path) -> tuple[dict[str, Tensor], Manifest]:
    """Weights and manifest of an export; adapters are left to `read_adapter`.

    Raises:
        CheckpointMismatch: if the folder is no export, or its weights are not those that were written.
    """
    manifest = read_manifest(folder)
    sha256 = file_fingerprint(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else "missing"
    if sha256 != manifest.sha256:
        raise CheckpointMismatch(
            f"{folder / WEIGHTS} is not the file that was exported (SHA-256 differs); export the run again"
        )
    return read_weights(folder / WEIGHTS), manifest
