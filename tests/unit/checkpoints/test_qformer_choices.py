"""Activation and eps of a Q-Former survive description and conversion, or the format refuses them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import DEMO, WORDS, stir
from shard_files import write_tokenizer
from tiny import qformer_config, vision_config
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

from blip2_train.checkpoints.architecture import build_model, describe_model
from blip2_train.checkpoints.convert.huggingface import SIDE, converted_manifest
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.foreign_exports.lavis import write_lavis
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.image_text import ImageTextModel


def model_with_relu() -> ImageTextModel:
    config = qformer_config(vocab_size=WORDS, hidden_act="relu", layer_norm_eps=1e-6, fold_token_type=True)
    model = ImageTextModel(vision_config(), config)
    stir(model, 0.2)
    return model.eval()


def test_transformers_computes_the_same_and_reads_back_the_same(tmp_path: Path) -> None:
    model = model_with_relu()
    tokens = load_qformer_tokenizer(str(DEMO / "bert"))
    processor = Processor(image_size=32, max_text_length=16, mean=CLIP_MEAN, std=CLIP_STD, text_tokenizer=tokens)
    write_huggingface(tmp_path / "there", model, processor, converted_manifest(True, "a test"))
    shutil.rmtree(tmp_path / "there" / SIDE)
    theirs: Any = Blip2ForImageTextRetrieval.from_pretrained(tmp_path / "there").eval()
    back: Any = open_pretrained(tmp_path / "there").model
    assert (back.qformer_config.hidden_act, back.qformer_config.layer_norm_eps) == ("relu", 1e-6)
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(5, WORDS - 1, (2, 7))
    marked = torch.cat([torch.full((2, 4), theirs.config.image_token_index), ids], dim=1)  # one for each query
    with torch.no_grad():
        scores = theirs(pixels, marked, torch.ones_like(marked), use_image_text_matching_head=True).logits_per_image
        ours = back.match([back.encode_image(pixels).image_kv], ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(ours, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"hidden_act": "relu"}, "has hidden_act gelu, that of this model relu"),
        ({"layer_norm_eps": 1e-6}, "has layer_norm_eps 1e-12, that of this model 1e-06"),
        ({"hidden_size": 768, "num_heads": 6}, "has num_heads 12, that of this model 6"),
    ],
)
def test_the_original_release_cannot_hold_what_it_has_fixed(tmp_path: Path, choice: dict[str, Any], words: str) -> None:
    with torch.device("meta"):
        model = ImageTextModel(vision_config(), qformer_config(**choice))
    with pytest.raises(CheckpointMismatch, match=words):
        write_lavis(tmp_path / "x.pth", model, with_tower=False, manifest=converted_manifest(True, "a test"))


def test_descriptions_hold_the_choices_and_older_ones_lack_them() -> None:
    description = describe_model(model_with_relu())
    again = build_model(description).qformer_config
    assert (again.hidden_act, again.fold_token_type) == ("relu", True)
    old = {key: value for key, value in description["qformer"].items() if key not in ("hidden_act", "fold_token_type")}
    again = build_model({**description, "qformer": old}).qformer_config
    assert (again.hidden_act, again.fold_token_type) == ("gelu", False)


def test_a_cased_vocabulary_stays_cased(tmp_path: Path) -> None:
    """Also a token that was added to it, and for transformers itself."""
    words = ["A", "a", "Café", "cafe", "."]
    config = qformer_config(vocab_size=len(words) + 7)
    model = ImageTextModel(vision_config(mean=CLIP_MEAN, std=CLIP_STD), config).eval()
    folder = Path(write_tokenizer(tmp_path / "cased", words))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": len(words) + 5}))
    tokens = load_qformer_tokenizer(str(folder))
    processor = Processor(image_size=32, max_text_length=16, mean=CLIP_MEAN, std=CLIP_STD, text_tokenizer=tokens)
    write_huggingface(tmp_path / "there", model, processor, converted_manifest(True, "a test"))
    shutil.rmtree(tmp_path / "there" / SIDE)
    back: Any = open_pretrained(tmp_path / "there").processor.text_tokenizer
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path / "there", trust_remote_code=False)
    text = "A Café<new> ."
    ids = [2, 5, 7, len(words) + 5, 9, 3]
    assert tokens(text).input_ids == back(text).input_ids == theirs(text).input_ids == ids
    assert len(back) == len(tokens) == config.vocab_size and back.bos_token_id == len(tokens) - 1
