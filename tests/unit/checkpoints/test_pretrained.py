"""One way in for every format: exports with and without their frozen parts, options, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import DEMO, language_tokenizer, our_model, save_theirs, their_model
from safetensors.torch import load_file, save_file
from torch import nn

from blip2_train.checkpoints.assembly import complete_manifest, without_ties
from blip2_train.checkpoints.export import write_export
from blip2_train.checkpoints.files import fingerprint
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.search.index_record import model_fingerprint
from blip2_train.models.freezing import trainable_names
from blip2_train.models.quantization import QuantizedLinear
from blip2_train.pretrained import load_pretrained
from blip2_train.system.atomic_write import with_checksum

TOWER = {
    "weights": str(DEMO / "vision" / "model.safetensors"), "image_size": 96,
    "overrides": {"patch_size": 12, "embed_dim": 128, "depth": 4, "num_heads": 4},
}  # fmt: skip


def trained_model(kind: str, **vision: Any) -> Any:
    """A model with the demo's frozen parts, and the processor and manifest of its export."""
    language = {} if kind == "retrieval" else {"weights": "pretrained"}
    model, processor, manifest = our_model(kind, TOWER | vision, **language)
    keep = {name: tensor.clone() for name, tensor in model.state_dict().items() if name in trainable_names(model)}
    load_initial_weights(model, None)
    model.load_state_dict(keep, strict=False)
    return model, processor, complete_manifest(manifest, model, processor)


def export(folder: Path, kind: str = "opt", whole: bool = False, **vision: Any) -> tuple[Any, Path]:
    model, processor, manifest = trained_model(kind, **vision)
    keep = trainable_names(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if whole or name in keep}
    return model, write_export(folder, without_ties(state), "seed: 1\n", processor.own_tokenizer, manifest)


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    state, again = model.state_dict(), other.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5", "retrieval"])
@pytest.mark.parametrize("whole", [False, True])
def test_an_export_with_or_without_its_frozen_parts(kind: str, whole: bool, tmp_path: Path) -> None:
    model, folder = export(tmp_path / "export", kind, whole)
    opened = open_pretrained(folder)
    assert_same_weights(model, opened.model)
    parts = {"vision_model", "language_model"} if kind != "retrieval" else {"vision_model"}
    assert opened.held == (parts if whole else set())
    assert len(opened.reports) == (1 if whole else 1 + len(parts))
    assert opened.source == f"blip2_train export ({'stage1' if kind == 'retrieval' else 'stage2'})"
    assert opened.config == "seed: 1\n" and not opened.model.training
    assert opened.processor.image_size == 96 and opened.processor.max_text_length == 16
    if kind != "retrieval":
        assert opened.processor.language_tokenizer.end_id == language_tokenizer(kind).end_id
        assert opened.processor.language_tokenizer.padding_side == "left"
        assert not any(parameter.requires_grad for parameter in opened.model.language_model.parameters())
        tied = opened.model.language_model
        assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert trainable_names(opened.model) == trainable_names(model)


def test_a_run_folder_stands_for_its_export(tmp_path: Path) -> None:
    model, _ = export(tmp_path / "run" / "export", "retrieval")
    assert_same_weights(model, open_pretrained(str(tmp_path / "run")).model)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_precision_is_that_of_the_frozen_parts(whole: bool, tmp_path: Path) -> None:
    _, folder = export(tmp_path / "export", whole=whole)
    model = open_pretrained(folder, dtype="bfloat16").model
    frozen = {model.language_model.dtype, *(p.dtype for p in model.vision_model.parameters())}
    assert frozen == {torch.bfloat16}
    assert {p.dtype for p in model.qformer.parameters()} == {torch.float32}
    assert open_pretrained(folder).model.language_model.dtype == torch.float32


def test_a_trained_tower_is_frozen_for_another_precision(tmp_path: Path) -> None:
    model, folder = export(tmp_path / "export", "retrieval", frozen=False)
    assert_same_weights(model, open_pretrained(folder).model)
    half = open_pretrained(folder, dtype="float16").model
    assert half.vision_config.frozen and half.vision_model.tower.pos_embed.dtype == torch.float16


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_quantised(whole: bool, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    _, folder = export(tmp_path / "export", whole=whole)
    model = open_pretrained(folder, quantization="int8").model
    layers = [type(module) for module in model.language_model.modules()]
    assert layers.count(QuantizedLinear) == 4 * 6 and model.language_config.quantization == "int8"
    assert open_pretrained(folder).model.language_config.quantization == "none"


@pytest.mark.slow
def test_frozen_parts_that_moved(tmp_path: Path) -> None:
    model, folder = export(tmp_path / "export")
    manifest = folder / "manifest.json"
    about = json.loads(manifest.read_text())
    about["architecture"]["language"]["name"] = "/somewhere/else"
    about["architecture"]["vision"]["weights"] = "/somewhere/else.safetensors"
    manifest.write_text(json.dumps(with_checksum(about)))
    with pytest.raises(CheckpointMismatch, match="/somewhere/else"):
        open_pretrained(folder)
    opened = open_pretrained(folder, language_model=str(DEMO / "opt"), vision_weights=TOWER["weights"])
    assert_same_weights(model, opened.model)


@pytest.mark.slow
def test_other_frozen_parts_than_in_training_are_refused(tmp_path: Path) -> None:
    model, processor, manifest = trained_model("opt")
    frozen = {name: tensor for name, tensor in model.named_parameters() if not tensor.requires_grad}
    manifest = replace(manifest, frozen_fingerprint=fingerprint(frozen))
    state = {name: tensor for name, tensor in model.state_dict().items() if name in trainable_names(model)}
    folder = write_export(tmp_path / "export", state, "", processor.own_tokenizer, manifest)
    assert_same_weights(model, open_pretrained(folder).model)
    other = tmp_path / "other"
    shutil.copytree(DEMO / "opt", other)
    weights = load_file(other / "model.safetensors")
    weights["model.decoder.layers.0.fc1.bias"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointMismatch, match=f"trained with other frozen parts than .* language model {other}"):
        open_pretrained(folder, language_model=str(other))


@pytest.mark.slow
def test_options_that_cannot_be_used(tmp_path: Path) -> None:
    _, whole = export(tmp_path / "whole", whole=True)
    for option in ("language_model", "vision_weights"):
        with pytest.raises(ConfigError, match=f"{option}=x: .* holds these weights itself"):
            open_pretrained(whole, **{option: "x"})
    with pytest.raises(ConfigError, match="float8"):
        open_pretrained(whole, dtype="float8")
    with pytest.raises(ConfigError, match="int3"):
        open_pretrained(whole, quantization="int3")
    _, pairs = export(tmp_path / "pairs", "retrieval")
    with pytest.raises(ConfigError, match="has none"):
        open_pretrained(pairs, quantization="int8")


def test_what_is_not_understood(tmp_path: Path) -> None:
    """One line that says what can be read."""
    (tmp_path / "empty").mkdir()
    torch.save({"epoch": 3, "weights": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.txt").write_text("hello")
    torch.save({"state_dict": {}, "blip2_train": {}}, tmp_path / "step.ckpt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    _, old = export(tmp_path / "old", "retrieval")
    about = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps(with_checksum(about | {"architecture": {}})))
    for source, message in [
        (tmp_path / "nothing", "there is no .*nothing; what can be read is an export of blip2_train"),
        (tmp_path / "empty", "empty is not known here; what can be read is"),
        (tmp_path / "other.pth", "other.pth is not known here; what can be read is"),
        (tmp_path / "text.txt", "text.txt cannot be read as weights"),
        (tmp_path / "step.ckpt", "training checkpoint; share its weights first: scripts/export.py"),
        (
            tmp_path / "run",
            "run has no export yet; finish it .resume_from=.*, or .*: python scripts/export.py .*run",
        ),
        (tmp_path / "old", "does not describe its model; export the run again"),
        ("Salesforce/blip2-opt-2.7b", "as a hub id it could not be fetched .*HF_HUB_OFFLINE is set"),
    ]:
        with pytest.raises(CheckpointMismatch, match=message) as caught:
            open_pretrained(source)
        assert "\n" not in str(caught.value)


def test_what_a_published_model_lacks_is_the_same_each_time(tmp_path: Path) -> None:
    """Published retrieval models have no head that writes: an index of such a model is searched by it, loaded anew."""
    folder = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")
    first = load_pretrained(folder, device="cpu")[0]
    torch.rand(3)
    state = torch.get_rng_state()
    second = load_pretrained(folder, device="cpu")[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_weights(first.network, second.network)
    assert first.network.lm_head.dense.weight.std() > 0
    assert model_fingerprint(first) == model_fingerprint(second)


def test_random_frozen_parts_are_not_made_up(tmp_path: Path) -> None:
    model, processor, manifest = our_model("opt")
    manifest = complete_manifest(manifest, model, processor)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in trainable_names(model)}
    write_export(tmp_path / "export", state, "", processor.own_tokenizer, manifest)
    with pytest.raises(CheckpointMismatch, match="does not hold its vision tower, whose weights were random"):
        open_pretrained(tmp_path / "export")
    state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith("vision_model.")}
    write_export(tmp_path / "export", state, "", processor.own_tokenizer, manifest)
    with pytest.raises(CheckpointMismatch, match="does not hold its language model, whose weights were random"):
        open_pretrained(tmp_path / "export")
