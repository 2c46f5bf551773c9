"""Adapters in exports: peft's own layout, what loads it, what it becomes in other formats, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import DEMO, our_model
from permissions import group_umask, permissions
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Blip2ForConditionalGeneration

from blip2_train.checkpoints.assembly import complete_manifest
from blip2_train.checkpoints.export import read_export, write_export
from blip2_train.checkpoints.files import fingerprint
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.cli.convert_checkpoint import main as convert
from blip2_train.cli.terminal import run_command
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.adapted_layers import adapter_layers, is_adapter
from blip2_train.models.adapters import merge_adapters
from blip2_train.models.configs import AdapterConfig
from blip2_train.models.freezing import frozen_weights, kept_names
from blip2_train.system.atomic_write import with_checksum

peft = pytest.importorskip("peft", reason="the extra 'peft' is not installed")
TOWER = {
    "weights": str(DEMO / "vision" / "model.safetensors"), "image_size": 96,
    "overrides": {"patch_size": 12, "embed_dim": 128, "depth": 4, "num_heads": 4},
}  # fmt: skip
LORA = AdapterConfig(r=4, dropout=0.1)


def stir_adapters(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def export(folder: Path, kind: str = "opt", config: AdapterConfig = LORA) -> tuple[Any, Path]:
    """A model with the demo's frozen parts and adapters that have learnt something, and its export."""
    language = {} if kind == "retrieval" else {"weights": "pretrained"}
    model, processor, manifest = our_model(kind, TOWER, **language)
    random = {name: tensor.clone() for name, tensor in model.state_dict().items() if name in kept_names(model)}
    load_initial_weights(model, None, adapters=config)
    named = {name.replace(".base_layer.", "."): parameter for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, tensor in random.items():
            named[name].copy_(tensor)
    stir_adapters(model)
    model.eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if name in kept_names(model)}
    about = complete_manifest(manifest, model, processor)
    return model, write_export(folder, state, "seed: 1\n", processor.own_tokenizer, about)


def language_logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 15).reshape(2, 6)
    decoder_inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, **decoder_inputs).logits
    return logits


def test_a_group_reads_every_file_of_an_export(tmp_path: Path) -> None:
    with group_umask():
        _, folder = export(tmp_path / "export")
    modes = permissions(folder)
    assert {"model.safetensors", "adapter/adapter_model.safetensors", "manifest.json"} <= modes.keys()
    assert set(modes.values()) == {"-rw-r-----"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_peft_itself_reads_what_an_export_holds(kind: str, tmp_path: Path) -> None:
    model, folder = export(tmp_path / "export", kind)
    assert not any(is_adapter(name) or "language_model" in name for name in load_file(folder / "model.safetensors"))
    assert {path.name for path in (folder / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    factory: Any = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    plain = factory.from_pretrained(DEMO / kind).eval()
    before = language_logits(plain)
    theirs = peft.PeftModel.from_pretrained(plain, folder / "adapter").eval()
    assert theirs.peft_config["default"].base_model_name_or_path == str(DEMO / kind)
    assert type(theirs).__name__ == {"opt": "PeftModelForCausalLM", "t5": "PeftModelForSeq2SeqLM"}[kind]
    ours = language_logits(model.language_model)
    assert torch.equal(language_logits(theirs), ours) and (before - ours).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_an_export_is_opened_with_its_adapters(kind: str, tmp_path: Path) -> None:
    model, folder = export(tmp_path / "export", kind)
    opened = open_pretrained(folder)
    state, again = model.state_dict(), opened.model.state_dict()
    assert state.keys() == again.keys() and all(torch.equal(state[name], again[name]) for name in state)
    assert opened.model.adapters == model.adapters and not any(part.training for part in opened.model.modules())
    assert opened.held == set() and "adapters on language_model" in opened.reports[-1].what
    half = open_pretrained(folder, dtype="bfloat16").model
    assert {p.dtype for name, p in half.named_parameters() if is_adapter(name)} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_transformers_reads_the_merged_model(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = export(tmp_path / "export", kind)
    assert run_command(convert, [str(folder), "--format", "huggingface", "--to", str(tmp_path / "merged")]) == 0
    assert "adapters: merged into the language model" in capsys.readouterr().out
    assert "changed by LoRA adapters" in (tmp_path / "merged" / "README.md").read_text("utf-8")
    theirs = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "merged").eval().language_model
    expected = language_logits(model.language_model)
    torch.testing.assert_close(language_logits(theirs)[..., : expected.shape[-1]], expected, rtol=1e-3, atol=1e-3)
    merge_adapters(model)
    assert run_command(convert, [str(tmp_path / "merged"), "--to", str(tmp_path / "ours")]) == 0
    with pytest.raises(CheckpointMismatch, match="start from the export with adapters that it was merged from"):
        load_initial_weights(our_model(kind, TOWER, weights="pretrained")[0], str(tmp_path / "ours"))
    again = open_pretrained(tmp_path / "ours").model
    assert again.adapters is None
    torch.testing.assert_close(dict(again.state_dict()), dict(model.state_dict()))


@pytest.mark.slow
def test_other_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = export(tmp_path / "export")
    assert run_command(convert, [str(folder), "--to", str(tmp_path / "copy")]) == 0
    again = open_pretrained(tmp_path / "copy").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert run_command(convert, [str(folder), "--to", str(tmp_path / "x.pth")]) == 2
    assert "lavis holds no language model" in capsys.readouterr().err


@pytest.mark.slow
def test_a_qformer_with_adapters_is_exported_as_an_ordinary_one(tmp_path: Path) -> None:
    config = AdapterConfig(target="qformer", r=2, alpha=3, target_modules=["query", "key", "dense"])
    model, folder = export(tmp_path / "export", "retrieval", config)
    assert not (folder / "adapter").exists() and "adapters" not in read_export(folder)[1].architecture
    opened = open_pretrained(folder).model
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = (m.encode_image(images).image_features for m in (model, opened))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    merge_adapters(model)
    torch.testing.assert_close(dict(opened.state_dict()), dict(model.state_dict()))


@pytest.mark.slow
def test_a_run_goes_on_with_the_adapters_of_an_export(tmp_path: Path) -> None:
    model, folder = export(tmp_path / "export")
    following, _, _ = our_model("opt", TOWER, weights="pretrained")
    reports = load_initial_weights(following, str(folder), adapters=AdapterConfig(r=4, dropout=0.3))
    state, again = model.state_dict(), following.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert reports[-1].fresh == () and len(reports[-1].loaded) == 2 * 4 * 2
    for other in (None, AdapterConfig(r=8), AdapterConfig(r=4, alpha=8), AdapterConfig(target="qformer", r=4)):
        with pytest.raises(CheckpointMismatch, match=r"pass peft=lora peft.r=4 peft.alpha=16 'peft.target_modules=\[q"):
            load_initial_weights(our_model("opt", TOWER)[0], str(folder), adapters=other)


@pytest.mark.slow
def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    _, folder = export(tmp_path / "export")
    file = folder / "adapter" / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointMismatch, match=r"adapter_model.safetensors is missing or not the file"):
        open_pretrained(folder)
    file.write_bytes(whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["architecture"]["adapters"]["rank"] = 4
    (folder / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
    with pytest.raises(
        CheckpointMismatch, match=r"manifest.json: architecture.adapters cannot be read \(unknown field 'rank'\)"
    ):
        load_initial_weights(our_model("opt", TOWER)[0], str(folder))


@pytest.mark.slow
def test_the_frozen_parts_have_the_fingerprint_that_they_have_without_adapters(tmp_path: Path) -> None:
    """So an export is opened with the plain language model's files, and a change of those is noticed."""
    model, _ = export(tmp_path / "export")
    plain, _, _ = our_model("opt", TOWER, weights="pretrained")
    load_initial_weights(plain, None)
    assert fingerprint(frozen_weights(plain)) == fingerprint(frozen_weights(model))
    adapter_layers(model)["language_model.model.decoder.layers.0.self_attn.q_proj"].weight.data[0, 0] += 1
    assert fingerprint(frozen_weights(plain)) != fingerprint(frozen_weights(model))
