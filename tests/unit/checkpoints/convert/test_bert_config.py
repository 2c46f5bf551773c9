"""What a BERT checkpoint says of itself, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from shard_files import WORDS, write_tokenizer
from transformers import BertConfig
from transformers.models.distilbert import DistilBertConfig

import blip2_train
from blip2_train.checkpoints.convert import bert_config
from blip2_train.checkpoints.convert.bert_config import bert_tokenizer, read_bert_config
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch

DEMO = Path(blip2_train.__file__).parent / "assets" / "demo" / "bert"
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "vocab_size": len(WORDS) + 5,
}  # fmt: skip


def folder(path: Path, **changes: Any) -> str:
    """A folder with the configuration and the tokenizer of a small BERT."""
    BertConfig(**{**SIZES, **changes}).save_pretrained(path)
    return write_tokenizer(path)


def test_every_field_that_a_checkpoint_fixes(tmp_path: Path) -> None:
    values = read_bert_config(folder(tmp_path, hidden_act="gelu_new", layer_norm_eps=1e-6))
    assert values == {
        "hidden_size": 16, "num_layers": 3, "num_heads": 2, "intermediate_size": 32, "max_positions": 40,
        "hidden_act": "gelu_new", "layer_norm_eps": 1e-6, "vocab_size": len(WORDS) + 6,
    }  # fmt: skip
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert read_bert_config(str(tmp_path / "model.safetensors")) == values


def test_the_config_of_the_demos_bert_is_right() -> None:
    values = read_bert_config(str(DEMO))
    assert (values["num_heads"], values["num_layers"]) == (4, 4)
    assert (values["hidden_size"], values["max_positions"]) == (128, 64)
    assert values["vocab_size"] == len(load_qformer_tokenizer(str(DEMO)))


def test_the_vocabulary_is_the_tokenizer_s_where_embeddings_have_more_rows(tmp_path: Path) -> None:
    tokens = len(WORDS) + 6
    padded = folder(tmp_path / "padded", vocab_size=64)
    assert read_bert_config(padded)["vocab_size"] == tokens
    (tmp_path / "padded" / "vocab.txt").unlink()
    assert read_bert_config(padded)["vocab_size"] == 65
    other = write_tokenizer(tmp_path / "tokenizer", ["a", "b"])
    assert read_bert_config(padded, other)["vocab_size"] == 8
    with pytest.raises(CheckpointMismatch, match=rf"has {tokens - 1} tokens, BERT weights .* have only 30 "):
        read_bert_config(folder(tmp_path / "short", vocab_size=30))


def test_the_tokenizer_lies_beside_the_weights(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "other.pt").write_bytes(b"")
    assert bert_tokenizer(path) == bert_tokenizer(str(tmp_path / "model.safetensors")) == path
    assert bert_tokenizer(str(tmp_path / "other.pt")) is None and bert_tokenizer("owner/bert") == "owner/bert"
    (tmp_path / "vocab.txt").unlink()
    assert bert_tokenizer(path) is None


def test_an_export_is_no_bert(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointMismatch, match=r"is an export of a run, no BERT; start from it with init_from="):
        read_bert_config(str(tmp_path))


def test_configurations_without_model_type_are_bert_s(tmp_path: Path) -> None:
    """Those of 2019 have neither a type nor an eps."""
    path = folder(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    old = {key: value for key, value in content.items() if key not in ("model_type", "layer_norm_eps")}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert read_bert_config(path)["layer_norm_eps"] == 1e-12


def test_weights_alone_fix_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "mine.pt").write_bytes(b"")
    assert read_bert_config(str(tmp_path / "mine.pt")) == {}
    with pytest.raises(CheckpointMismatch, match=r"no weight file .*absent.pt"):
        read_bert_config(str(tmp_path / "absent.pt"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "roberta"}, "model of type 'roberta'"),
        ({"model_type": "blip-2"}, "'blip-2'.*init_from"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'"),
        ({"num_attention_heads": 3}, "hidden_size 16 is not divisible by num_attention_heads 3"),
        ({"num_attention_heads": "2"}, "num_attention_heads: expected int, got str"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected int >= 1"),
        ({"hidden_size": True}, "hidden_size: expected int, got bool"),
        ({"hidden_act": "xielu"}, "hidden_act is 'xielu'"),
        ({"hidden_act": ["gelu"]}, "hidden_act: expected str, got array"),
        ({"layer_norm_eps": None}, "layer_norm_eps: expected float, got null"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: expected float > 0"),
    ],
)
def test_what_is_no_bert_is_named_in_one_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = folder(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(CheckpointMismatch, match=words) as caught:
        read_bert_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 100_000, b"\xff\xfe\x00".decode("latin-1")])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointMismatch, match=r"config\.json") as caught:
        read_bert_config(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_another_model_that_transformers_saved(tmp_path: Path) -> None:
    DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"'distilbert'.*starts from 'bert' only"):
        read_bert_config(str(tmp_path))


def test_of_a_hub_id_the_small_files_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    expected: list[str] = []

    def fetch(name: str, patterns: list[str]) -> Path:
        expected.extend([name, *patterns])
        return tmp_path

    monkeypatch.setattr(bert_config, "fetch_files", fetch)
    assert read_bert_config("owner/bert")["num_heads"] == 2
    assert expected[:2] == ["owner/bert", "config.json"] and not any("safetensors" in name for name in expected)
