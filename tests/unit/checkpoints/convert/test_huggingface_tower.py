"""A model with a tower of any family is exported and opened again; a Hugging Face folder is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import our_model
from safetensors.torch import save_file
from tower_families import FAMILIES, NARROW, Family

from blip2_train.checkpoints.assembly import complete_manifest, without_ties
from blip2_train.checkpoints.export import MANIFEST, read_export, write_export
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import VisionConfig
from blip2_train.models.freezing import trainable_names
from blip2_train.models.timm_without_wandb import timm
from blip2_train.models.vision_tower import normalisation
from blip2_train.system.atomic_write import with_checksum

each = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.architecture)
SIZE = 112


def _vision(family: Family, **changes: Any) -> dict[str, Any]:
    mean, std = normalisation(VisionConfig(name=family.name, weights="random", image_size=SIZE))
    return {"name": family.name, "image_size": SIZE, "overrides": NARROW, "mean": mean, "std": std, **changes}


def _export(folder: Path, vision: dict[str, Any]) -> Any:
    model, processor, manifest = our_model("retrieval", vision)
    if model.vision_config.weights != "random":
        trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        load_initial_weights(model, None)
        model.load_state_dict({name: trained[name] for name in trainable_names(model)}, strict=False)
    keep = trainable_names(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in keep}
    manifest = complete_manifest(manifest, model, processor)
    write_export(folder, without_ties(state), "", processor.own_tokenizer, manifest)
    return model


@pytest.mark.slow
@each
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_an_export_gives_the_same_features(family: Family, trained: bool, tmp_path: Path) -> None:
    """A trained tower lies in the export; a frozen one, in 16 bits, comes from its own file, of another image size."""
    if trained:
        vision = _vision(family, frozen=False)
    else:
        torch.manual_seed(0)
        weights: Any = timm.create_model(family.architecture, **NARROW)
        save_file(weights.state_dict(), tmp_path / "tower.safetensors")
        vision = _vision(family, weights=str(tmp_path / "tower.safetensors"), dtype="float16")
    model = _export(tmp_path / "export", vision)
    again = open_pretrained(tmp_path / "export").model
    assert {name: (b.dtype, b.device) for name, b in again.vision_model.named_buffers()} == {
        name: (b.dtype, b.device) for name, b in model.vision_model.named_buffers()
    }
    pixels = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, expected = again.vision_model(pixels), model.vision_model(pixels)
    assert expected.float().std() > 0 and features.dtype == expected.dtype
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    numbers = read_export(tmp_path / "export")[1].architecture["vision"]
    assert (tuple(numbers["mean"]), tuple(numbers["std"])) == (vision["mean"], vision["std"])


def test_an_export_of_before_keeps_the_values_of_its_processor(tmp_path: Path) -> None:
    """Its description says nothing of mean and std; the tower's name would say others."""
    family = next(one for one in FAMILIES if one.label == "SigLIP")
    _export(tmp_path / "export", _vision(family, frozen=False))
    path = tmp_path / "export" / MANIFEST
    manifest = json.loads(path.read_text("utf-8"))
    for name in ("mean", "std"):
        del manifest["architecture"]["vision"][name]
    manifest["processor"] |= {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}
    path.write_text(json.dumps(with_checksum(manifest)), encoding="utf-8")
    opened = open_pretrained(tmp_path / "export")
    vision = opened.manifest.architecture["vision"]
    assert (opened.processor.mean, opened.processor.std) == (list(CLIP_MEAN), list(CLIP_STD))
    assert (vision["mean"], vision["std"]) == (CLIP_MEAN, CLIP_STD) == normalisation(opened.model.vision_config)


REASONS = {
    "SigLIP": "no class token",
    "DINOv2 with registers": "register tokens",
    "DINOv2": "scales the output of its layers",
    "EVA-02": "rotates queries and keys.*gated",
    "DeiT, distilled": "distillation token",
    "BEiT v2": "relative positions",
    "CLIP, OpenCLIP": "normalises before its first block",
    "MAE": "",
    "DeiT": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("family", [one for one in FAMILIES if one.label in REASONS], ids=lambda one: one.architecture)
def test_a_hugging_face_folder_or_the_reason(family: Family, tmp_path: Path) -> None:
    model, processor, manifest = our_model("retrieval", _vision(family))
    reason = REASONS[family.label]
    if not reason:
        write_huggingface(tmp_path / "there", model, processor, manifest)
        back = open_pretrained(tmp_path / "there")
        pixels = torch.randn(1, 3, SIZE, SIZE)
        assert torch.equal(back.model.vision_model(pixels), model.vision_model(pixels))
        assert back.model.vision_config.mean == tuple(back.processor.mean) == (0.485, 0.456, 0.406)
        return
    with pytest.raises(CheckpointMismatch, match=reason):
        write_huggingface(tmp_path / "there", model, processor, manifest)
