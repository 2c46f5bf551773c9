import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from shard_files import write_tokenizer
from timm.models import build_model_with_cfg
from tiny import image_text_model
from tiny_generation import generative_model

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.export import Manifest, read_config_text, read_export, read_manifest, write_export
from blip2_train.checkpoints.foreign_descriptions import TIMM_ARGUMENTS, check_description
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.freezing import trainable_names
from blip2_train.models.vision_tower import PLAIN
from blip2_train.system.atomic_write import with_checksum


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
    manifest.write_text(json.dumps({**about, "step": 4}))
    with pytest.raises(CheckpointMismatch, match="is damaged: its content does not fit its checksum"):
        read_export(folder)
    manifest.write_text(json.dumps(with_checksum({**about, "sha256": "0" * 64})))
    with pytest.raises(CheckpointMismatch, match="SHA-256"):
        read_export(folder)
    manifest.write_text("{")
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        read_export(folder)
    manifest.unlink()
    with pytest.raises(CheckpointMismatch, match="no export"):
        read_export(folder)


def described(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """An export whose manifest says what it is, and that manifest."""
    folder = export(tmp_path)
    about = json.loads((folder / "manifest.json").read_text())
    about["architecture"] = json.loads(json.dumps(describe_model(generative_model("opt"))))
    about["processor"] = {"image_size": 24, "max_text_length": 12, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "manifest.json").write_text(json.dumps(with_checksum(about)))
    return folder, about


VISION, LANGUAGE = ("architecture", "vision"), ("architecture", "language")
OPT = {"model_type": "opt", "hidden_size": 16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("step",), "3", "step: expected int, got str"),
        (("step",), 10**40, "step: a whole number of 136 bits"),
        (("metrics",), {"val/x": "low"}, "expected float, got str"),
        (("sha256",), None, "sha256: expected str, got null"),
        (("more",), 1, "unknown field 'more'"),
        (("architecture",), [], "architecture: expected object, got array"),
        (("architecture", "kind"), None, "architecture cannot be read (kind: expected str"),
        (VISION, {}, "architecture.vision cannot be read (object missing required field name)"),
        ((*VISION, "name"), "hf-hub:some/body", "architecture.vision.name 'hf-hub:some/body' is no name of timm"),
        ((*VISION, "name"), "vit_tiny_patch16_224.local-dir:/tmp", "is no name of timm"),
        ((*VISION, "image_size"), "224", "architecture.vision cannot be read (image_size: expected int, got str)"),
        ((*VISION, "dtype"), "int4", "vision dtype 'int4' is unknown"),
        ((*VISION, "builder"), "x", "unknown field 'builder'"),
        ((*VISION, "overrides", "checkpoint_path"), "x.pth", "overrides: checkpoint_path is nothing that a file may"),
        ((*VISION, "overrides", "pretrained_cfg"), {}, "overrides: pretrained_cfg is nothing that a file may set"),
        ((*VISION, "overrides", "cache_dir"), "/", "overrides: cache_dir is nothing that a file may set"),
        ((*VISION, "overrides", "depth"), 10**6, "depth is 1000000, more than 1000"),
        (("architecture", "qformer", "num_layers"), 10**6, "num_layers is 1000000, more than 1000"),
        ((*LANGUAGE, "overrides"), {"_attn_implementation": "a/b"}, "_attn_implementation is nothing that a file"),
        ((*LANGUAGE, "overrides"), {"__class__": "a"}, "__class__ is nothing that a file may set"),
        ((*LANGUAGE, "architecture"), OPT | {"attn_implementation": "a/b"}, "attn_implementation is nothing that"),
        ((*LANGUAGE, "architecture"), OPT | {"_attn_implementation": "a/b"}, "_attn_implementation is nothing that"),
        ((*LANGUAGE, "architecture"), OPT | {"auto_map": {}}, "auto_map is nothing that a file may set"),
        ((*LANGUAGE, "architecture"), OPT | {"quantization_config": {"a": 1}}, "quantization_config is nothing that"),
        ((*LANGUAGE, "architecture"), OPT | {"num_hidden_layers": 10**5}, "num_hidden_layers is 100000, more than"),
        (
            (*LANGUAGE, "architecture"),
            {"model_type": "gemma3", "text_config": {"auto_map": {"AutoConfig": "a.B"}}},
            "text_config: auto_map is nothing that a file may set",
        ),
        ((*LANGUAGE, "architecture"), {"model_type": "nobodys"}, "model_type 'nobodys' is unknown to transformers"),
        ((*LANGUAGE, "architecture"), {"hidden_size": 1}, "language architecture lacks model_type"),
        (("architecture", "adapters"), {"r": 8, "task_type": "eval"}, "task_type: invalid enum value 'eval'"),
        (("architecture", "adapters"), {"r": "8", "task_type": "CAUSAL_LM"}, "r: expected int, got str"),
        (("processor", "image_size"), 0, "processor cannot be read (image_size: expected int >= 1)"),
        (("processor", "text_tokenizer"), "x", "unknown field 'text_tokenizer'"),
    ],
)
def test_what_a_manifest_may_set_is_an_allow_list(
    tmp_path: Path, path: tuple[str, ...], value: Any, words: str
) -> None:
    folder, about = described(tmp_path)
    read_manifest(folder)
    inside = about
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(with_checksum(about)))
    with pytest.raises(CheckpointMismatch) as caught:
        read_manifest(folder)
    assert words in str(caught.value) and str(folder / "manifest.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "more than 64 deep"),
        ('{"step": ' + "9" * 5000 + "}", "a number of thousands of digits"),
        ("\udcff", "utf-8"),
        ("[]", "expected object, got array"),
        ("{}", "missing required field stage"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointMismatch, match=rf"manifest.json cannot be read \(.*{words}"):
        read_manifest(tmp_path)


def test_what_transformers_notes_in_a_configuration_is_left_out(tmp_path: Path) -> None:
    folder, about = described(tmp_path)
    noted = {"_name_or_path": "a", "architectures": ["A"], "transformers_version": "4", "n_positions": 3}
    about["architecture"]["language"]["architecture"] = OPT | noted
    (folder / "manifest.json").write_text(json.dumps(with_checksum(about)))
    assert read_manifest(folder).architecture["language"]["architecture"] == OPT


def test_how_a_person_computes_is_no_part_of_a_description() -> None:
    """What command line and recipe may set, and a manifest may not, does not stand in the manifest of the run."""
    model = generative_model("opt", overrides={"_attn_implementation": "eager", "dropout": 0.0})
    assert model.language_model.config._attn_implementation == "eager"
    description = describe_model(model)
    assert description["language"]["overrides"] == {"dropout": 0.0}
    assert check_description(json.loads(json.dumps(description)), "it")["language"]["overrides"] == {"dropout": 0.0}


def test_the_listed_arguments_are_architecture() -> None:
    """Each is one of a tower's own constructor, none of what timm does around it: fetching, loading, caching."""
    own = {name for kind in PLAIN for name in inspect.signature(kind.__init__).parameters}
    around = {*inspect.signature(timm.create_model).parameters, *inspect.signature(build_model_with_cfg).parameters}
    assert own >= TIMM_ARGUMENTS and not TIMM_ARGUMENTS & around


def test_a_configuration_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    folder = export(tmp_path)
    (folder / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointMismatch, match=r"config.yaml cannot be read \(.*utf-8.*; export the run again"):
        read_config_text(folder)
    (folder / "config.yaml").unlink()
    assert read_config_text(folder) == ""
