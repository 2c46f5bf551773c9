import json
from pathlib import Path

import pytest
import torch
from shard_files import write_tokenizer
from tiny import image_text_model

from blip2_train.checkpoints.export import Manifest, read_export, write_export
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.data.tokenizers import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.freezing import trainable_names


def export(tmp_path: Path, seed: int = 0) -> Path:
    model = image_text_model(seed)
    keep = trainable_names(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in keep}
    manifest = Manifest(
        stage="stage1", recipe="demo_stage1", step=3, metrics={"val/loss_itc": 1.0}, parent=None, frozen_fingerprint=""
    )
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    return write_export(tmp_path / "export", state, "seed: 1\n", tokenizer, manifest)


def test_an_export_holds_everything_and_comes_back(tmp_path: Path) -> None:
    folder = export(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.yaml",
        "tokenizer",
        "manifest.json",
    }
    state, manifest = read_export(folder)
    assert manifest.step == 3 and manifest.metrics == {"val/loss_itc": 1.0}
    assert not any(name.startswith("vision_model") for name in state)
    tokens = load_qformer_tokenizer(str(folder / "tokenizer"))
    assert len(tokens) == len(load_qformer_tokenizer(str(tmp_path / "tokenizer")))
    model = image_text_model(seed=5)
    load_initial_weights(model, str(folder))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_a_second_export_replaces_the_first_and_leaves_nothing_behind(tmp_path: Path) -> None:
    export(tmp_path)
    folder = export(tmp_path, seed=1)
    assert torch.equal(read_export(folder)[0]["query_tokens"], image_text_model(1).query_tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "tokenizer"]


def test_changed_weights_and_broken_manifests_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path)
    manifest = folder / "manifest.json"
    about = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**about, "sha256": "0" * 64}))
    with pytest.raises(CheckpointMismatch, match="SHA-256"):
        read_export(folder)
    manifest.write_text("{")
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        read_export(folder)
    manifest.unlink()
    with pytest.raises(CheckpointMismatch, match="no export"):
        read_export(folder)
