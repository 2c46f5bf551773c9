from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from shard_files import WORDS, write_tokenizer

from blip2_train.data.collate import ImageTextCollator
from blip2_train.data.tokenizers import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.types import ImageTextSample, RejectedSample


def test_the_decoder_start_is_the_last_token(tmp_path: Path) -> None:
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path))
    assert len(tokenizer) == len(WORDS) + 6
    assert tokenizer.bos_token == "[DEC]" and tokenizer.bos_token_id == len(tokenizer) - 1
    assert tokenizer.convert_ids_to_tokens(tokenizer("a red cat").input_ids) == ["[CLS]", "a", "red", "cat", "[SEP]"]
    assert tokenizer.pad_token_id == 0


def test_a_saved_tokenizer_loads_again(tmp_path: Path) -> None:
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path / "first"))
    tokenizer.save_pretrained(tmp_path / "second")
    again = load_qformer_tokenizer(str(tmp_path / "second"))
    assert again.get_vocab() == tokenizer.get_vocab()


def test_wrong_tokenizers_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "gpt").mkdir()
    model = {"type": "BPE", "vocab": {"a": 0, "<|endoftext|>": 1}, "merges": []}
    (tmp_path / "gpt" / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "tokenizer.json").write_text("{")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "vocab.txt").write_text("a\nb\n")
    (tmp_path / "moved").mkdir()
    write_tokenizer(tmp_path / "moved", ["a", "[DEC]", "b"])
    for name, message in {
        "missing": "there is no tokenizer folder",
        "empty": "neither vocab.txt nor tokenizer.json",
        "gpt": "is not a BERT tokenizer.*CLS",
        "torn": "cannot be read",
        "plain": "lacks .*PAD",
        "moved": "not as the last",
    }.items():
        with pytest.raises(CheckpointMismatch, match=message) as caught:
            load_qformer_tokenizer(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_had_is_named() -> None:
    """transformers alone gives a tokenizer without words."""
    with pytest.raises(CheckpointMismatch, match=r"tokenizer: bert-base-uncased .*could not be fetched.*local folder"):
        load_qformer_tokenizer("bert-base-uncased")


def _sample(caption: str, number: int = 0) -> ImageTextSample:
    bad = RejectedSample(source="s", key=str(number), reason="r", detail="")
    return ImageTextSample(
        pixel_values=torch.full((3, 2, 2), float(number)), caption=caption, image_id=2**62 + number,
        sample_id=f"s/{number}#0", rejected=(bad,) * number,
    )  # fmt: skip


def test_a_batch(tmp_path: Path) -> None:
    collate = ImageTextCollator(load_qformer_tokenizer(write_tokenizer(tmp_path)), max_text_length=6)
    batch = collate([_sample("a cat", 0), _sample("a b c d e f g h", 1), _sample("🎉", 2)])
    assert batch.input_ids.shape == batch.attention_mask.shape == (3, 6)
    assert batch.attention_mask.dtype == torch.bool
    assert batch.attention_mask.sum(1).tolist() == [4, 6, 3]
    assert batch.longest_text == 6
    assert batch.input_ids[1, -1] == 3, "[SEP] stays when a text is cut"
    assert batch.input_ids[0].tolist()[4:] == [0, 0]
    assert batch.image_ids.tolist() == [2**62, 2**62 + 1, 2**62 + 2]
    assert batch.sample_ids == ("s/0#0", "s/1#0", "s/2#0") and len(batch.rejected) == 3 and len(batch) == 3
    assert collate([_sample("a cat")]).longest_text == 4


def test_no_room_for_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_text_length"):
        ImageTextCollator(load_qformer_tokenizer(write_tokenizer(tmp_path)), max_text_length=2)
