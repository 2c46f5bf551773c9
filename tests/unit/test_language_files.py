"""Folders that people have and take for language models are named as what they are; tokens are read as files state."""

import json
from pathlib import Path

import pytest

from blip2_train import language_files
from blip2_train.checkpoints.initial_weights import load_language_model
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.language_files import StatedTokens, locate_language_model, stated_tokens
from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.language_model import build_language_model

OTHERS = {
    "gguf": (["config.json", "tiny.Q4_K_M.gguf"], r"is a GGUF file \(tiny.Q4_K_M.gguf\), weights for llama.cpp; give"),
    "peft": (["adapter_config.json", "adapter_model.safetensors"], r"is a peft adapter of some/base .* merge it"),
    "onnx": (["config.json", "tokenizer.json", "onnx/model.onnx"], r"is an ONNX graph \(onnx/model.onnx\)"),
}


def write(folder: Path, files: list[str]) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"base_model_name_or_path": "some/base", "model_type": "opt"}))
    return folder


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_are_named_before_transformers_reads_them(kind: str, tmp_path: Path) -> None:
    files, words = OTHERS[kind]
    name = str(write(tmp_path / "model", files))
    with pytest.raises(CheckpointMismatch, match=words) as refused:
        LanguageTokenizer(name, padding_side="left", encoder_decoder=False)
    assert "\n" not in str(refused.value)
    with pytest.raises(CheckpointMismatch, match=words):
        build_language_model(LanguageModelConfig(name=name))


def test_also_where_a_recipe_gives_the_architecture(tmp_path: Path) -> None:
    from tiny_generation import generative_model

    model = generative_model("opt", name=str(write(tmp_path / "model", OTHERS["peft"][0])))
    with pytest.raises(CheckpointMismatch, match="is a peft adapter"):
        load_language_model(model)


def test_a_single_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, ["x.gguf", "model.safetensors"])
    with pytest.raises(CheckpointMismatch, match="is a GGUF file"):
        locate_language_model(str(tmp_path / "x.gguf"))
    with pytest.raises(CheckpointMismatch, match="is a file; give the folder"):
        locate_language_model(str(tmp_path / "model.safetensors"))


def test_a_graph_beside_weights_is_no_matter(tmp_path: Path) -> None:
    folder = write(tmp_path, ["config.json", "model.safetensors", "onnx/model.onnx"])
    assert locate_language_model(str(folder)) == str(folder)


def test_the_same_for_hub_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"some/model-GGUF": ("README.md", "a.gguf"), "some/model": ("config.json", "model.safetensors")}
    monkeypatch.setattr(language_files, "_files_on_hub", lambda name: listed[name])
    with pytest.raises(CheckpointMismatch, match="some/model-GGUF is a GGUF file"):
        locate_language_model("some/model-GGUF")
    assert locate_language_model("some/model") == "some/model"


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "lm", ["config.json"])
    assert locate_language_model("~/lm") == str(tmp_path / "lm")
    with pytest.raises(CheckpointMismatch, match="there is no language model folder ~/gone"):
        LanguageTokenizer("~/gone", padding_side="left", encoder_decoder=False)


def test_tokens_are_those_that_the_files_state(tmp_path: Path) -> None:
    assert stated_tokens(str(tmp_path)) == StatedTokens()
    (tmp_path / "config.json").write_text('{"model_type": "llama", "eos_token_id": 2, "pad_token_id": -1}')
    assert stated_tokens(str(tmp_path)) == StatedTokens(ends=(2,))  # and not the class's default start
    (tmp_path / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": [7, 9], "pad_token_id": 0}')
    assert stated_tokens(str(tmp_path)) == StatedTokens(starts=(1,), ends=(7, 9, 2), pads=(0,))
    (tmp_path / "config.json").write_text('{"text_config": {"eos_token_id": 50118}}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [true, "a", null, -3]}')
    assert stated_tokens(str(tmp_path)) == StatedTokens(ends=(50118,))
    for content in ("[" * 100_000, '{"eos_token_id": ' + "9" * 5000 + "}", "[]", "\xff"):
        (tmp_path / "generation_config.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(CheckpointMismatch, match=r"generation_config.json cannot be read \(.*; download it again"):
            stated_tokens(str(tmp_path))
