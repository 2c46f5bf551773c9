"""A Q-Former started from any class of BERT, and what contradicts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shard_files import write_tokenizer
from tiny import VOCABULARY, image_text_model
from tiny_generation import generative_model
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

from blip2_train.checkpoints.convert import bert
from blip2_train.checkpoints.convert.bert import load_bert, locate_bert
from blip2_train.errors import CheckpointMismatch

State = dict[str, Tensor]
IDS = torch.tensor([[2, 9, 11, 30, 3], [2, 50, 3, 0, 0]])
MASK = IDS != 0


def small(**changes: Any) -> BertConfig:
    """The sizes of the tests' Q-Former."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY - 1, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 40,
    }  # fmt: skip
    return BertConfig(**(sizes | changes))


def saved(folder: Path, kind: Any = BertModel, seed: int = 3, **changes: Any) -> Any:
    """A BERT with weights far from zero, saved to `folder`."""
    torch.manual_seed(seed)
    model = kind(small(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def changed(folder: Path, change: Callable[[State], State]) -> None:
    """Change the tensors of a saved model."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})


def text_pass(model: Any) -> Tensor:
    with torch.no_grad():
        states: Tensor = model.qformer(model.embeddings(IDS), num_queries=0, mask=MASK[:, None, None]).states
    return states[MASK]


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert.", "0.auto_model."])
def test_a_bert_without_head_gives_its_text_pass(tmp_path: Path, prefix: str, pooler: bool) -> None:
    theirs = saved(tmp_path, lambda config: BertModel(config, add_pooling_layer=pooler))
    changed(tmp_path, lambda state: {f"{prefix}{key}": tensor for key, tensor in state.items()})
    model = image_text_model(fold_token_type=True).eval()
    fresh = model.lm_head.dense.weight.clone()
    report = load_bert(model, str(tmp_path))
    with torch.no_grad():
        expected = theirs(IDS, attention_mask=MASK.long()).last_hidden_state[MASK]
    torch.testing.assert_close(text_pass(model), expected, rtol=1e-5, atol=1e-5)
    assert {name for name in report.fresh if name.startswith("lm_head")} == {
        f"lm_head.{name}" for name in ("bias", "dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")
    }
    assert torch.equal(model.lm_head.dense.weight, fresh)
    assert any("no prediction head" in line and "starts fresh" in line for line in report.lines())


def test_token_types_are_dropped_unless_they_are_folded(tmp_path: Path) -> None:
    theirs = saved(tmp_path)
    model = image_text_model().eval()
    report = load_bert(model, str(tmp_path))
    assert any(
        "token-type embeddings are dropped" in line and "fold_token_type=true" in line for line in report.lines()
    )
    with torch.no_grad():
        expected = theirs(IDS, attention_mask=MASK.long()).last_hidden_state[MASK]
    assert (text_pass(model) - expected).abs().max() > 0.01
    changed(tmp_path, lambda state: {key: tensor for key, tensor in state.items() if "token_type" not in key})
    with pytest.raises(CheckpointMismatch, match=r"no token-type embeddings to fold; set .*fold_token_type=false"):
        load_bert(image_text_model(fold_token_type=True), str(tmp_path))


def _google(state: State) -> State:
    """The names of the first releases, and the buffer that they kept."""
    renamed = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for key, tensor in state.items()
    }
    return {**renamed, "bert.embeddings.position_ids": torch.arange(40)[None]}


def _second_names(state: State) -> State:
    """The other names of the tied tensors."""
    words, bias = state.pop("bert.embeddings.word_embeddings.weight"), state.pop("cls.predictions.bias")
    return {**state, "cls.predictions.decoder.weight": words, "cls.predictions.decoder.bias": bias}


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining])
@pytest.mark.parametrize("change", [dict, _google, _second_names])
def test_a_prediction_head_comes_along_under_all_its_names(
    tmp_path: Path, kind: Any, change: Callable[[State], State]
) -> None:
    theirs = saved(tmp_path, kind)
    changed(tmp_path, change)
    model = image_text_model(fold_token_type=True).eval()
    report = load_bert(model, str(tmp_path))
    assert not any(name.startswith("lm_head") for name in report.fresh)
    assert not any("prediction head" in note for note in report.notes)
    with torch.no_grad():
        states = model.qformer(model.embeddings(IDS), num_queries=0, mask=MASK[:, None, None]).states
        ours = model.lm_head(states, model.embeddings.word_embeddings.weight)[MASK]
        expected = theirs(IDS, attention_mask=MASK.long())
        expected = expected.logits if kind is BertForMaskedLM else expected.prediction_logits
    torch.testing.assert_close(ours[:, :-1], expected[MASK], rtol=1e-4, atol=1e-4)


def test_heads_for_other_tasks_are_left_out_and_reported(tmp_path: Path) -> None:
    saved(tmp_path, BertForSequenceClassification)
    report = load_bert(image_text_model(), str(tmp_path))
    assert {"classifier.weight", "classifier.bias", "pooler.dense.weight", "pooler.dense.bias"} <= set(report.ignored)


def test_parts_that_change_what_a_layer_computes_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    changed(tmp_path, lambda state: {**state, "encoder.layer.0.adapter.weight": torch.ones(2)})
    with pytest.raises(CheckpointMismatch, match=r"holds unexpected 1 tensors .*; the model has no such parts"):
        load_bert(image_text_model(), str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "theirs"),
    [
        ("num_heads", {"num_attention_heads": 4}),
        ("num_layers", {"num_hidden_layers": 2}),
        ("hidden_size", {"hidden_size": 32}),
        ("intermediate_size", {"intermediate_size": 64}),
        ("max_positions", {"max_position_embeddings": 64}),
        ("max_positions", {"max_position_embeddings": 30}),
        ("hidden_act", {"hidden_act": "relu"}),
        ("layer_norm_eps", {"layer_norm_eps": 1e-6}),
    ],
)
@pytest.mark.parametrize("make", [image_text_model, generative_model])
def test_what_contradicts_the_checkpoint_is_named(
    tmp_path: Path, field: str, theirs: dict[str, Any], make: Callable[[], Any]
) -> None:
    saved(tmp_path, **theirs)
    model, (value,) = make(), theirs.values()
    ours = getattr(model.qformer_config, field)
    words = rf"model\.qformer\.{field} is {ours}, the checkpoint has {value} \(config\.json\)"
    with pytest.raises(CheckpointMismatch, match=words) as caught:
        load_bert(model, str(tmp_path))
    assert str(caught.value).count("the checkpoint has") == 1 and "\n" not in str(caught.value)


def test_the_activation_and_the_eps_of_the_checkpoint_are_computed(tmp_path: Path) -> None:
    theirs = saved(tmp_path, hidden_act="gelu_new", layer_norm_eps=1e-3)
    model = image_text_model(fold_token_type=True, hidden_act="gelu_new", layer_norm_eps=1e-3).eval()
    load_bert(model, str(tmp_path))
    with torch.no_grad():
        expected = theirs(IDS, attention_mask=MASK.long()).last_hidden_state[MASK]
    torch.testing.assert_close(text_pass(model), expected, rtol=1e-5, atol=1e-5)


def test_a_file_without_configuration_lists_what_was_not_compared(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    report = load_bert(image_text_model(), str(tmp_path / "mine.safetensors"))
    assert "no config.json is beside the weights: 2 heads, gelu and layer_norm_eps 1e-12" in report.notes[0]
    with pytest.raises(CheckpointMismatch, match=r"position_embeddings.weight has shape \(40, 16\), .* \(20, 16\)"):
        load_bert(image_text_model(max_positions=20), str(tmp_path / "mine.safetensors"))
    words = r"the file has 3 of qformer\.encoder\.layer, the model 2: give the model the file's number of layers"
    with pytest.raises(CheckpointMismatch, match=words):
        load_bert(image_text_model(num_layers=2), str(tmp_path / "mine.safetensors"))


def test_rows_beyond_the_tokenizer_are_left_out(tmp_path: Path) -> None:
    """Published embeddings are often padded to a multiple of 8 or 64."""
    words = VOCABULARY - 1
    theirs = saved(tmp_path, BertForMaskedLM, vocab_size=64)
    with pytest.raises(CheckpointMismatch, match=f"have 64 tokens, the recipe expects {words}"):
        load_bert(image_text_model(), str(tmp_path))
    write_tokenizer(tmp_path, (f"w{number}" for number in range(words - 5)))
    model = image_text_model()
    fresh_row = model.embeddings.word_embeddings.weight[-1].clone()
    report = load_bert(model, str(tmp_path))
    held = theirs.bert.embeddings.word_embeddings.weight
    assert torch.equal(model.embeddings.word_embeddings.weight[:words], held[:words])
    assert torch.equal(model.embeddings.word_embeddings.weight[-1], fresh_row)
    assert torch.equal(model.lm_head.bias[:words], theirs.cls.predictions.bias[:words]) and model.lm_head.bias[-1] == 0
    assert any(f"rows {words} … 63" in line for line in report.lines())


def test_a_file_that_is_no_bert_is_called_so(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"hold no word embeddings .* no BERT's"):
        load_bert(image_text_model(), str(tmp_path / "x.safetensors"))


def test_a_blip_2_is_called_so(tmp_path: Path) -> None:
    save_file(image_text_model().state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"query tokens: they are a BLIP-2's, .* init_from"):
        load_bert(image_text_model(), str(tmp_path / "x.safetensors"))


def test_without_a_text_half_there_is_nothing_to_say_of_tokens(tmp_path: Path) -> None:
    saved(tmp_path)
    report = load_bert(generative_model(), str(tmp_path))
    assert not report.notes and "embeddings.word_embeddings.weight" in report.ignored
    model = generative_model(reads_questions=True)
    assert any("token-type" in note for note in load_bert(model, str(tmp_path)).notes)


def test_an_older_repository_has_its_weights_in_a_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[str] = []

    def fetch(name: str, patterns: list[str]) -> Path:
        expected.extend(patterns)
        if "pytorch_model*.bin" in patterns:
            (tmp_path / "pytorch_model.bin").write_bytes(b"")
        return tmp_path

    monkeypatch.setattr(bert, "fetch_files", fetch)
    assert locate_bert("owner/bert") == tmp_path and "pytorch_model*.bin" in expected
    expected.clear()
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert locate_bert("owner/bert") == tmp_path and "pytorch_model*.bin" not in expected
