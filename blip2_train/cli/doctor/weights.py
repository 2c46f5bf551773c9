"""Whether every weight that a run starts from is there and of the right shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig

from blip2_train.checkpoints.adapter_files import read_adapter
from blip2_train.checkpoints.adapters import attach_adapters, check_adapters
from blip2_train.checkpoints.convert.bert import load_bert
from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.checkpoints.export import Manifest, read_export
from blip2_train.checkpoints.files import read_training_state
from blip2_train.checkpoints.handover import LoadReport, load_by_rule
from blip2_train.checkpoints.initial_weights import (
    RANDOM,
    fit_positions,
    handover_rule,
    holds_tower,
    load_language_model,
)
from blip2_train.checkpoints.text_half import load_text_half
from blip2_train.cli.compose import instantiate
from blip2_train.cli.doctor.findings import OK, SKIPPED, Finding, attempt
from blip2_train.cli.doctor.machine import host_memory
from blip2_train.cli.overview import size_text
from blip2_train.cli.run_folder import find_checkpoint, find_export
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.memory import language_model_bytes
from blip2_train.models.vision_tower import VisionTower

Export = tuple[dict[str, torch.Tensor], Manifest]


def examine_weights(config: DictConfig) -> list[Finding]:
    """Load each file as a run would, one by one, so that everything that is wrong with them is found.

    Everything but the language model goes into a model on the meta device, which has shapes and no memory.
    """
    findings: list[Finding] = []
    export = None
    if config.init_from is not None:
        export = attempt(findings, lambda: read_export(Path(_located(config, config.init_from))))
    vision = attempt(findings, lambda: instantiate(config.model.vision))
    if vision is not None and vision.weights != RANDOM and not (export and holds_tower(export[0])):
        _report(findings, lambda: [load_tower(_meta_tower(config), vision)])
    model = attempt([], lambda: _meta_model(config))  # why not, the examination of the model says
    if model is not None:
        if isinstance(model, GenerativeModel) and model.language_config.weights != RANDOM:
            findings += _language_model(model)
        if export is not None:
            _report(findings, lambda: _from_export(config, model, export))
        elif config.init_from is None and model.qformer_config.weights != RANDOM:
            _report(findings, lambda: [_bert(model)])
    if config.resume_from is not None:
        attempt(findings, lambda: _checkpoint(config))
    return findings or [Finding(OK, "the run starts from random weights")]


def _located(config: DictConfig, name: str) -> str:
    return find_export(name, config.paths.output_dir)


def _meta_tower(config: DictConfig) -> VisionTower:
    with torch.device("meta"):
        return VisionTower(instantiate(config.model.vision))


def _meta_model(config: DictConfig) -> ImageTextModel | GenerativeModel:
    with torch.device("meta"):
        model: ImageTextModel | GenerativeModel = instantiate(config.model)
    return model


def _report(findings: list[Finding], load: Callable[[], list[LoadReport]]) -> None:
    """Add what a load reports, or why it failed."""
    for report in attempt(findings, load) or []:
        fresh = f", {len(report.fresh)} fresh" if report.fresh else ""
        findings.append(Finding(OK, "; ".join((f"{report.what}: {len(report.loaded)} tensors{fresh}", *report.notes))))


def _language_model(model: GenerativeModel) -> list[Finding]:
    """Read the language model whole, because only transformers knows which file names stand for which weights."""
    config = model.language_config
    size, there = language_model_bytes(config, config.dtype, config.quantization), host_memory()
    if size > there:
        return [
            Finding(
                SKIPPED,
                f"language model {config.name} takes {size_text(size)}, this machine has {size_text(there)}: not read",
            )
        ]
    findings: list[Finding] = []
    _report(findings, lambda: [load_language_model(model)])
    return findings


def _from_export(config: DictConfig, model: ImageTextModel | GenerativeModel, export: Export) -> list[LoadReport]:
    """The export that the run starts from, the one that its Q-Former's text half comes from, and the adapters."""
    state, manifest = export
    name = _located(config, config.init_from)
    adapters = None if config.peft is None else instantiate(config.peft)
    chosen = check_adapters(model, adapters, manifest, name)
    rule = handover_rule(model, manifest, f"export {name}", holds_tower(state))
    reports = [load_by_rule(model, fit_positions(state, model.vision_model), rule)]
    text_from = None if config.init_text_from is None else _located(config, config.init_text_from)
    reports += load_text_half(model, manifest, text_from)
    if chosen is not None:
        held = read_adapter(Path(name), manifest.adapter_sha256)
        reports.append(attach_adapters(model, chosen, held, f"export {name}"))
    return reports


def _bert(model: ImageTextModel | GenerativeModel) -> LoadReport:
    if hasattr(model, "embeddings"):  # one row of them is added to BERT's, so that it has to exist
        model.embeddings.word_embeddings.to_empty(device="cpu")
    return load_bert(model, model.qformer_config.weights)


def _checkpoint(config: DictConfig) -> None:
    read_training_state(find_checkpoint(config.resume_from, config.paths.output_dir, config.experiment))
