"""Whether every weight that a run starts from is there and of the right shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from omegaconf import DictConfig

from blip2_train.checkpoints.adapters import attach_adapters, check_adapters
from blip2_train.checkpoints.convert.bert import load_bert
from blip2_train.checkpoints.foreign_weights import SourceWeights
from blip2_train.checkpoints.frozen_parts import LANGUAGE_MODEL, VISION_MODEL, load_language_model, load_tower
from blip2_train.checkpoints.initial_weights import RANDOM, brings_language_model, load_source, pretrained_parts
from blip2_train.checkpoints.load_rules import LoadReport
from blip2_train.checkpoints.training_checkpoints import read_training_state
from blip2_train.checkpoints.weight_sources import find_weights
from blip2_train.cli.doctor.findings import OK, SKIPPED, Finding, attempt
from blip2_train.cli.doctor.machine import host_memory
from blip2_train.cli.part_sizes import size_text
from blip2_train.config.compose import instantiate
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.memory import language_model_bytes
from blip2_train.models.vision_tower import VisionTower
from blip2_train.training.earlier_runs import find_checkpoint, find_export


def examine_weights(config: DictConfig) -> list[Finding]:
    """Load each file as a run would, one by one, so that everything that is wrong with them is found.

    Everything but the language model goes into a model on the meta device, which has shapes and no memory.
    """
    findings: list[Finding] = []
    source = None
    if config.init_from is not None:
        source = attempt(findings, lambda: find_weights(_located(config, config.init_from)))
    vision = attempt(findings, lambda: instantiate(config.model.vision))
    if vision is not None and vision.weights != RANDOM and not (source and VISION_MODEL in source.held):
        _report(findings, lambda: [load_tower(_meta_tower(config), vision)])
    model = attempt([], lambda: _meta_model(config))  # the examination of the model reports why not
    if model is not None:
        if LANGUAGE_MODEL in pretrained_parts(model):
            findings += _language_model(model, source)
        if source is not None:
            _report(findings, lambda: _from_source(config, model, source))
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


def _meta_model(config: DictConfig) -> Blip2Model:
    with torch.device("meta"):
        model: Blip2Model = instantiate(config.model)
    return model


def _report(findings: list[Finding], load: Callable[[], list[LoadReport]]) -> None:
    """Add what a load reports, or why it failed."""
    for report in attempt(findings, load) or []:
        fresh = f", {len(report.fresh)} fresh" if report.fresh else ""
        findings.append(Finding(OK, "; ".join((f"{report.what}: {len(report.loaded)} tensors{fresh}", *report.notes))))


def _language_model(model: Blip2Model, source: SourceWeights | None) -> list[Finding]:
    """Read the language model whole, because only transformers maps the names in files to weights."""
    config = model.language_config
    assert config is not None
    size, there = language_model_bytes(config, config.dtype, config.quantization), host_memory()
    if size > there:
        return [
            Finding(
                SKIPPED,
                f"language model {config.name} takes {size_text(size)}, this machine has {size_text(there)}: not read",
            )
        ]
    findings: list[Finding] = []
    held = source if brings_language_model(model, source) else None
    _report(findings, lambda: [load_language_model(model, held)])
    return findings


def _from_source(config: DictConfig, model: Blip2Model, source: SourceWeights) -> list[LoadReport]:
    """What the run starts from, what its Q-Former's text half comes from, and the adapters."""
    adapters = None if config.peft is None else instantiate(config.peft)
    chosen = check_adapters(model, adapters, source.manifest, source.location)
    text_from = None if config.init_text_from is None else _located(config, config.init_text_from)
    reports = load_source(model, source, text_from)
    if chosen is not None:
        reports.append(attach_adapters(model, chosen, source.adapters, f"export {source.location}"))
    return reports


def _bert(model: Blip2Model) -> LoadReport:
    if model.reads_text:  # one row of them is added to BERT's, so that it has to exist
        model.embeddings.word_embeddings.to_empty(device="cpu")
    return load_bert(model, model.qformer_config.weights)


def _checkpoint(config: DictConfig) -> None:
    read_training_state(find_checkpoint(config.resume_from, config.paths.output_dir, config.experiment))
