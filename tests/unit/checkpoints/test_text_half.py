"""The text half of a Q-Former that reads questions comes from stage 1, by rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_files import write_tokenizer
from tiny import image_text_model
from tiny_generation import generative_model

from blip2_train.checkpoints.architecture import build_model, describe_model
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.freezing import trainable_names
from blip2_train.models.generative import GenerativeModel

LAST = "qformer.encoder.layer.2."


def generative(reads: bool, seed: int = 0) -> GenerativeModel:
    return generative_model(seed=seed, reads_questions=reads)


def written(folder: Path, stage: str, model: Blip2Model) -> str:
    keep = trainable_names(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in keep}
    about: dict[str, Any] = {"metrics": {}, "parent": None, "frozen_fingerprint": ""}
    manifest = Manifest(stage=stage, recipe=stage, step=1, architecture=describe_model(model), **about)
    tokenizer = load_qformer_tokenizer(write_tokenizer(folder / "tokenizer"))
    return str(write_export(folder / stage, state, "", tokenizer, manifest))


def is_text(name: str) -> bool:
    return re.match(r"embeddings\.|qformer\.encoder\.layer\.\d\.(intermediate|output)\.", name) is not None


def test_two_exports_make_one_model(tmp_path: Path) -> None:
    first, second = image_text_model(1), generative(reads=False, seed=2)
    model = generative(reads=True, seed=3)
    reports = load_initial_weights(model, written(tmp_path, "stage2", second), written(tmp_path, "stage1", first))
    sources = {True: first.state_dict(), False: second.state_dict()}
    for name in trainable_names(model):
        assert torch.equal(model.state_dict()[name], sources[is_text(name)][name]), name
    lines = [line for report in reports for line in report.lines()]
    assert len(reports) == 2 and lines[3].startswith("text half of export") and "nothing" in lines[4]
    assert all(map(is_text, reports[1].loaded))
    assert set(reports[0].fresh) >= set(reports[1].loaded) and any("itm_head" in name for name in reports[1].ignored)


def test_what_is_missing_or_too_much_is_reported(tmp_path: Path) -> None:
    stage_1 = written(tmp_path, "stage1", image_text_model(1))
    stage_2 = written(tmp_path, "stage2", generative(reads=False))
    with pytest.raises(CheckpointMismatch, match="pass init_text_from=<stage-1 export"):
        load_initial_weights(generative(reads=True), stage_2)
    with pytest.raises(CheckpointMismatch, match="is an export of stage2; give one of stage1"):
        load_initial_weights(generative(reads=True), stage_2, stage_2)
    with pytest.raises(CheckpointMismatch, match="pass init_text_from=null"):
        load_initial_weights(generative(reads=False), stage_2, stage_1)
    other = written(tmp_path / "other", "stage1", image_text_model(1, intermediate_size=48))
    with pytest.raises(CheckpointMismatch, match="has shape"):
        load_initial_weights(generative(reads=True), stage_2, other)


def test_stage_1_alone_and_an_export_of_its_own_bring_the_text_half(tmp_path: Path) -> None:
    first = image_text_model(1)
    model = generative(reads=True, seed=3)
    (report,) = load_initial_weights(model, written(tmp_path, "stage1", first))
    assert torch.equal(model.embeddings.word_embeddings.weight, first.embeddings.word_embeddings.weight)
    assert {name for name in report.ignored if name.startswith(LAST)} == {
        f"{LAST}{part}" for part in (
            "intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight", "output.dense.bias",
            "output.LayerNorm.weight", "output.LayerNorm.bias",
        )
    }  # fmt: skip
    again = generative(reads=True, seed=4)
    (report,) = load_initial_weights(again, written(tmp_path, "vqa", model))
    assert all(torch.equal(again.state_dict()[name], model.state_dict()[name]) for name in trainable_names(model))
    assert not any(is_text(name) for name in report.fresh)


def test_the_description_states_that_questions_are_read() -> None:
    for reads in (True, False):
        rebuilt = build_model(describe_model(generative(reads)))
        assert isinstance(rebuilt, GenerativeModel) and rebuilt.question_to_qformer is reads
