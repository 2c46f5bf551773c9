"""What others wrote as JSON or YAML: wrong types, gaps, depth, huge numbers are one line with file and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from foreign_models import save_theirs, their_model
from shard_files import write_shards, write_tokenizer

from blip2_train.checkpoints.convert.bert_config import read_bert_config
from blip2_train.checkpoints.convert.huggingface_config import describe_processor
from blip2_train.checkpoints.export import read_manifest
from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.weight_sources import describe_source
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.shards.shard_lists import read_shard_lists
from blip2_train.data.storage.remote import Storage
from blip2_train.errors import Blip2TrainError, CheckpointMismatch, ConfigError
from blip2_train.language_files import stated_tokens
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import normalisation
from blip2_train.system.records import DEEPEST, JsonObject, Size, check_record, parse_record, parse_yaml

NO_JSON = [
    "[" * 100_000,
    '{"a":' * 50_000,
    '{"a": ' + "[" * 80 + "]" * 80 + "}",
    '{"a": ' + "9" * 5000 + "}",
    '{"a": -' + "9" * 300 + "}",
    '{"a": 1',
    "",
    "\xff\xfe",
    "[]",
    "null",
]


class Inner(msgspec.Struct):
    size: Size


class Outer(msgspec.Struct):
    name: str
    parts: list[Inner]
    share: float = 0.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "a", "parts": [{"size": "3"}]}, "parts[0].size: expected int, got str"),
        ({"name": "a", "parts": [{"size": 3}, {}]}, "parts[1]: object missing required field size"),
        ({"name": "a", "parts": [{"size": 0}]}, "parts[0].size: expected int >= 1"),
        ({"name": "a", "parts": [{"size": True}]}, "parts[0].size: expected int, got bool"),
        ({"name": "a", "parts": [{"size": 10**20}]}, "parts[0].size: a whole number of 68 bits"),
        ({"name": None, "parts": []}, "name: expected str, got null"),
        ({"name": "a", "parts": {}}, "parts: expected array, got object"),
        ({"name": "a", "parts": [], "share": "1"}, "share: expected float, got str"),
        ({"name": "a", "parts": [], "shares": 1}, "unknown field 'shares'"),
        ({"name": object(), "parts": []}, "name: object is no plain value"),
        ({1: "a"}, "the file: the key 1 is no text"),
    ],
)
def test_file_and_field_are_named(value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_record(value, Outer, "some.json", "mend it", ConfigError, closed=True)
    assert str(caught.value) == f"some.json cannot be read ({words}); mend it"


def test_what_fits_is_taken() -> None:
    record = check_record({"name": "a", "parts": [{"size": 2}], "share": 1}, Outer, "it", "")
    assert record == Outer(name="a", parts=[Inner(2)], share=1.0)
    content = '{"model_max_length": 1000000000000000019884624838656, "text": "\\ud83d", "score": NaN}'
    assert parse_record(content, JsonObject, "it", "")["model_max_length"] == 1000000000000000019884624838656
    nested: Any = {}
    for _ in range(DEEPEST - 1):
        nested = {"a": nested}
    assert check_record(nested, JsonObject, "it", "") == nested


def test_a_few_values_that_stand_for_billions_are_refused() -> None:
    """As a pickle can hold them; whoever walks through all of them would never end."""
    several: Any = [1]
    for _ in range(60):
        several = [several, several]
    with pytest.raises(CheckpointMismatch, match="refers to other places of itself again and again"):
        check_record({"a": several}, JsonObject, "it", "")
    several.append(several)
    with pytest.raises(CheckpointMismatch, match=r"again and again|nested more than"):
        check_record({"a": several}, JsonObject, "it", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: ${oc.env:HOME}", r"line 1 holds an interpolation"),
        ("a: &b [1]\nc: *b", "refers to other places of itself"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: " + "[" * 5000, "nested too deep|nested more than"),
        ("a: 2024-01-01", "a: date is no plain value"),
        ("- a", "expected object, got array"),
        ("a: [", "expected the node content"),
        ("a: " + "9" * 5000, "digits"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_configurations_hold_plain_values(text: str, words: str) -> None:
    with pytest.raises(CheckpointMismatch, match=rf"config.yaml cannot be read \((?s:.*){words}") as caught:
        parse_yaml(text, "config.yaml", "mend it")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest": ("manifest.json", read_manifest),
    "weights": ("model.safetensors.index.json", read_weights),
    "bert": ("config.json", lambda folder: read_bert_config(str(folder))),
    "tokenizer": ("tokenizer_config.json", lambda folder: load_qformer_tokenizer(write_tokenizer(folder))),
    "vocabulary": ("tokenizer.json", lambda folder: load_qformer_tokenizer(str(folder))),
    "language model": ("generation_config.json", lambda folder: stated_tokens(str(folder))),
    "images": ("preprocessor_config.json", lambda folder: describe_processor(folder, 32)),
    "tower": (
        "config.json",
        lambda folder: normalisation(
            VisionConfig(name="vit_tiny_patch16_224", weights=str(folder / "a.pt"), image_size=32)
        ),
    ),
    "shards": ("index.json", lambda folder: read_shard_lists([str(folder / "0.tar")], Storage())),
}


@pytest.mark.parametrize("content", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_record_is_one_line(tmp_path: Path, reader: str, content: str) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    if reader == "shards" and content in ("[]", "null"):
        return  # of another program
    with pytest.raises(Blip2TrainError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / name) in message and "\n" not in message and len(message) < 500, message


@pytest.mark.parametrize(
    ("reader", "content", "words"),
    [
        ("weights", {}, "missing required field weight_map"),
        ("weights", {"weight_map": {"a": 1}}, "expected str, got int"),
        ("weights", {"weight_map": {"a": "../b.safetensors"}}, "which is no file beside it"),
        ("images", {"image_mean": "bright"}, "image_mean: expected"),
        ("images", {"image_mean": [1, 2]}, "image_mean: expected"),
        ("images", {"image_processor": {"image_std": {}}}, "image_std: expected"),
        (
            "shards",
            {"settings": {}, "shards": [{"file": "0.tar", "samples": "9", "bytes": 1}]},
            "samples: expected int",
        ),
        ("shards", {"settings": {}, "shards": [{"file": "0.tar", "samples": -1, "bytes": 1}]}, "expected int >= 0"),
        ("shards", {"settings": {}, "shards": [{"file": "../0.tar", "samples": 1, "bytes": 1}]}, "no file beside it"),
        ("shards", {"settings": {}, "shards": 3}, "shards: expected array, got int"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, reader: str, content: Any, words: str) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(Blip2TrainError, match=words) as caught:
        read(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_query_tokens": "32"}, "num_query_tokens"),
        ({"qformer_config": {"hidden_size": "wide"}}, "hidden_size"),
        ({"qformer_config": {"layer_norm_eps": "small"}}, "layer_norm_eps"),
        ({"vision_config": {"layer_norm_eps": "small"}}, "layer_norm_eps"),
        ({"vision_config": {"hidden_size": 0}}, "hidden_size"),
        ({"vision_config": {"image_size": [32, 32]}}, "image_size"),
        ({"vision_config": 3}, "vision_config|config.json"),
    ],
)
def test_a_configuration_of_transformers_is_typed(
    folder: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointMismatch, match=words) as caught:
        describe_source(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_theirs(their_model("opt"), "opt", tmp_path_factory.mktemp("theirs"))


def test_indexes_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    write_shards(tmp_path, [2])
    (tmp_path / "index.json").write_text(json.dumps({"__kind__": "wids-shard-index-v1", "shardlist": []}))
    assert read_shard_lists([str(next(tmp_path.glob("*.tar")))], Storage()) == ({}, [])
