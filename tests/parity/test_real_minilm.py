"""A published sentence encoder with BERT's real vocabulary of 30,522 starts stage 1, and computes what it computed.

`python scripts/real_parts.py` fetches it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from real_weights import PARTS, needs
from shard_files import write_shards
from tiny import vision_config
from tiny_run import arguments
from transformers import AutoTokenizer, BertModel

from blip2_train.checkpoints.convert.bert import load_bert
from blip2_train.checkpoints.convert.bert_config import read_bert_config
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import QFormerConfig
from blip2_train.models.image_text import ImageTextModel

FOLDER = str(PARTS / "minilm")
TEXTS = ["a photo of a cat on a roof", "two dogs", "Ein großes Haus, 1999!", "unbelievably long " * 40]

pytestmark = needs("minilm")

SENTENCES = ["a man rides a horse", "someone is riding on a horse", "a bowl of tomato soup"]


def test_as_its_model_card_uses_it_like_sentences_are_close() -> None:
    encoder, tokens = BertModel.from_pretrained(FOLDER).eval(), AutoTokenizer.from_pretrained(FOLDER)
    batch = tokens(SENTENCES, padding=True, return_tensors="pt")
    mask = batch.attention_mask[:, :, None]
    with torch.no_grad():
        states = encoder(**batch).last_hidden_state
    mean = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    alike, unlike = (mean[0] @ mean[1:].T).tolist()
    assert alike > 0.8 and unlike < 0.2


def model(**choices: Any) -> ImageTextModel:
    """A stage-1 model whose Q-Former has what the checkpoint says, and `choices`."""
    qformer = QFormerConfig(**{"weights": FOLDER, **read_bert_config(FOLDER), **choices})
    return ImageTextModel(vision_config(), qformer).eval()


def test_no_size_is_given_by_hand() -> None:
    assert read_bert_config(FOLDER) == {
        "hidden_size": 384, "num_layers": 6, "num_heads": 12, "intermediate_size": 1536, "max_positions": 512,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "vocab_size": 30523,
    }  # fmt: skip


@pytest.mark.slow
def test_the_text_pass_is_that_of_bert() -> None:
    ours, theirs = model(fold_token_type=True), BertModel.from_pretrained(FOLDER).eval()
    report = load_bert(ours, FOLDER)
    assert any("no prediction head" in note for note in report.notes)
    batch = load_qformer_tokenizer(FOLDER)(TEXTS, padding=True, return_tensors="pt")
    mask = batch.attention_mask.bool()
    with torch.no_grad():
        states = ours.qformer(ours.embeddings(batch.input_ids), num_queries=0, mask=mask[:, None, None]).states
        expected = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    difference = (states - expected)[mask].abs().max().item()
    assert difference <= 1e-5, difference


def test_the_tokenizer_is_its_own_but_for_the_decoder_start() -> None:
    tokens = load_qformer_tokenizer(FOLDER)
    assert (len(tokens), tokens.bos_token_id) == (30523, 30522)
    assert tokens("A photo of a CAT").input_ids == [101, 1037, 6302, 1997, 1037, 4937, 102]


def run_of(location: Path, *more: str) -> list[str]:
    """Two steps of the demo recipe with this Q-Former, nothing of which is given but where it lies."""
    write_shards(location / "shards", [9, 4, 13])
    sizes = [
        setting for setting in arguments(location / "out") if not setting.startswith(("model.qformer.", "tokenizer="))
    ]
    return [*sizes, "data.num_workers=0", "steps=2", "validate_every=null", f"model.qformer.weights={FOLDER}", *more]


@pytest.mark.slow
def test_stage_1_starts_from_it_by_one_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run_command(train, run_of(tmp_path, "verbose=true")) == 0
    printed = capsys.readouterr().out
    assert (
        "loaded 100 tensors" in printed
        and "no prediction head" in printed
        and "token-type embeddings are dropped" in printed
    )
    export = next((tmp_path / "out").glob("*/*/export"))
    sizes = json.loads((export / "manifest.json").read_text())["architecture"]["qformer"]
    assert (sizes["hidden_size"], sizes["num_heads"], sizes["vocab_size"]) == (384, 12, 30523)
    assert len(load_qformer_tokenizer(str(export / "tokenizer"))) == 30523


def test_a_contradiction_on_the_command_line_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(train, run_of(tmp_path, "model.qformer.num_heads=6")) == 2
    assert "model.qformer.num_heads=6 contradicts" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 6, 24])
def test_a_wrong_number_of_heads_is_refused(heads: int) -> None:
    with pytest.raises(CheckpointMismatch, match=rf"num_heads is {heads}, the checkpoint has 12"):
        load_bert(model(num_heads=heads), FOLDER)
