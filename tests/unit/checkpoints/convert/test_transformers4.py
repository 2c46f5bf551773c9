"""Folders for transformers: every small file is in a form that 4.57 and 5 both read, and 5 reads what was exported.

That 4.57 does read them is tried by `run_scripts/read_by_transformers4.sh`, which needs an environment of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_models import DEMO, our_model
from published_tokenizers import FAMILIES, write_language_model
from transformers import AutoTokenizer, Blip2Config, Blip2Processor, BlipImageProcessor

from blip2_train.checkpoints.convert.transformers4 import make_readable
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface

SIZES: dict[str, Any] = {
    "vocab_size": 1600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 128, "bos_token_id": 2, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 64}  # fmt: skip
GPT_2 = {"model_type": "gpt2", "vocab_size": 1600, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
FLAN = {"model_type": "t5", "vocab_size": 709, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2,
        "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "tie_word_embeddings": False}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("opt", {}),
    "gpt2": ("opt", {"architecture": GPT_2}),
    "llama": (
        "opt",
        {"architecture": {"model_type": "llama", **SIZES, "rope_theta": 5e5, "rope_scaling": {**LLAMA_3}}},
    ),
    "t5": ("t5", {}),
    "flan": ("t5", {"name": str(DEMO / "t5"), "architecture": FLAN}),
    "retrieval": ("retrieval", {}),
}
KNOWN_TO_BOTH = {"PreTrainedTokenizerFast", "BertTokenizer"}


def exported(name: str, folder: Path) -> tuple[Any, Any, Path]:
    kind, options = KINDS[name]
    if kind != "retrieval":
        options = {"name": str(DEMO / kind)} | options
    model, processor, manifest = our_model(kind, **options)
    return model, processor, write_huggingface(folder / name, model, processor, manifest)


def content(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_no_file_holds_what_transformers_4_cannot_read(name: str, tmp_path: Path) -> None:
    _, _, folder = exported(name, tmp_path)
    tokens = content(folder / "tokenizer_config.json")
    assert tokens["tokenizer_class"] in KNOWN_TO_BOTH
    assert "extra_special_tokens" not in tokens and not {"backend", "is_local", "local_files_only"} & tokens.keys()
    assert tokens["clean_up_tokenization_spaces"] is False
    assert (tokens["tokenizer_class"] == "BertTokenizer") == (name == "retrieval")
    if name != "retrieval":
        assert tokens["model_input_names"] == ["input_ids", "attention_mask"]
    extra = [f"<extra_id_{number}>" for number in range(20)] if name in ("t5", "flan") else []
    assert tokens.get("additional_special_tokens", []) == extra
    assert content(folder / "processor_config.json") == {"num_query_tokens": 4, "processor_class": "Blip2Processor"}
    images = content(folder / "preprocessor_config.json")
    assert images["image_processor_type"] == "BlipImageProcessor" and images["size"] == {"height": 32, "width": 32}
    for file in folder.glob("*.json"):
        assert str(DEMO) not in file.read_text(encoding="utf-8"), "a path of this machine"


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_transformers_5_reads_what_was_exported(name: str, tmp_path: Path) -> None:
    model, processor, folder = exported(name, tmp_path)
    reading = Blip2Processor.from_pretrained(folder)
    own = processor.text_tokenizer if name == "retrieval" else processor.language_tokenizer.tokenizer
    alone = AutoTokenizer.from_pretrained(folder)
    text = "a photo of two red cats\n, isn't it?"
    for tokenizer in (reading.tokenizer, alone):
        assert tokenizer(text).input_ids == own(text).input_ids
        assert tokenizer.decode(own(text).input_ids) == own.decode(own(text).input_ids)
        assert set(own.all_special_tokens) <= {*tokenizer.all_special_tokens}
        assert tokenizer.get_vocab().items() >= own.get_vocab().items()
    assert reading.num_query_tokens == 4 and dict(reading.image_processor.size) == {"height": 32, "width": 32}
    if name == "retrieval":
        return
    read, known = Blip2Config.from_pretrained(folder).text_config, model.language_model.config
    for key, value in known.to_dict().items():
        if key not in (
            "vocab_size",
            "_name_or_path",
            "dtype",
            "architectures",
            "transformers_version",
        ) and not key.endswith("token_id"):
            assert getattr(read, key) == value, key


def test_the_rotary_embedding_under_both_names(tmp_path: Path) -> None:
    """transformers 4 takes 10,000 and no scaling for what it does not find."""
    _, _, folder = exported("llama", tmp_path)
    text = content(folder / "config.json")["text_config"]
    assert text["rope_theta"] == 5e5 and text["rope_scaling"] == LLAMA_3
    assert text["rope_parameters"] == LLAMA_3 | {"rope_theta": 5e5}


def test_partial_rotary_embeddings(tmp_path: Path) -> None:
    phi = {"model_type": "phi", **SIZES, "partial_rotary_factor": 0.25, "rope_theta": 2e4}
    model, processor, manifest = our_model("opt", name=str(DEMO / "opt"), architecture=phi)
    folder = write_huggingface(tmp_path / "phi", model, processor, manifest)
    text = content(folder / "config.json")["text_config"]
    assert text["partial_rotary_factor"] == 0.25 and text["rope_theta"] == 2e4 and "rope_scaling" not in text
    read: Any = Blip2Config.from_pretrained(folder).text_config
    assert read.rope_parameters["partial_rotary_factor"] == 0.25


@pytest.mark.parametrize(("name", "tied"), [("t5", True), ("flan", False)])
def test_a_t5_states_whether_its_head_is_its_own(name: str, tied: bool, tmp_path: Path) -> None:
    """transformers 4 ties by that, and 5 writes True for every T5."""
    model, _, folder = exported(name, tmp_path)
    text = content(folder / "config.json")["text_config"]
    assert text["tie_word_embeddings"] is tied and text["scale_decoder_outputs"] is tied
    assert (model.output_layer()[0] is model.language_model.shared.weight) is tied


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["gemma", "gpt_neox"])
def test_what_only_transformers_5_computes_is_reported(
    model_type: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    architecture = {"model_type": model_type, **SIZES, "num_key_value_heads": 2, "head_dim": 16}
    model, processor, manifest = our_model("opt", name=str(DEMO / "opt"), architecture=architecture)
    folder = write_huggingface(tmp_path / "there", model, processor, manifest)
    plain = exported("opt", tmp_path)[2]
    assert "transformers 4.57 and 5 read it alike." in (plain / "README.md").read_text(encoding="utf-8")
    for text in ((folder / "README.md").read_text(encoding="utf-8"), caplog.text):
        assert "Read it with transformers 5" in text and model_type in text and "alike" not in text


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizers_in_the_arrangement_of_published_ones(family: str, tmp_path: Path) -> None:
    """Written in the form that both versions read, and read by this one as the tokenizer they were."""
    own = AutoTokenizer.from_pretrained(write_language_model(family, tmp_path / "from"))
    own.pad_token = own.pad_token or own.eos_token
    folder = tmp_path / "to"
    Blip2Processor(BlipImageProcessor(), own, num_query_tokens=4).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"text_config": {"_name_or_path": str(tmp_path)}}))
    make_readable(folder, own, untied_head=False)
    tokens = content(folder / "tokenizer_config.json")
    assert tokens["tokenizer_class"] in KNOWN_TO_BOTH and "extra_special_tokens" not in tokens
    assert all(isinstance(token, str) for token in tokens.get("additional_special_tokens", []))
    assert content(folder / "config.json")["text_config"]["_name_or_path"] == tmp_path.name
    again = Blip2Processor.from_pretrained(folder).tokenizer
    for text in ("a photo of", "two birds, in a red tree\n", f"a cat{own.eos_token}"):
        assert again(text).input_ids == own(text).input_ids
        assert again.decode(own(text).input_ids) == own.decode(own(text).input_ids)
    assert again.special_tokens_map == own.special_tokens_map
