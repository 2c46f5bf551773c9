"""Captions of BLIP: transformers' own where nothing is random, each image's by its own seed, else one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import write_tokenizer
from tiny_blip import write_blip
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, BlipProcessor

from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.blip_captioner import BlipCaptioner, decode_word_pieces
from blip2_train.models.configs import GenerationOptions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blip(tmp_path_factory.mktemp("blip"), BlipForConditionalGeneration)


def images(count: int = 3) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(count)]


def sampling(**more: float) -> GenerationOptions:
    return GenerationOptions(**({"num_beams": 1, "do_sample": True, "max_new_tokens": 8} | more))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [None, "two dogs", ""])
def test_the_likeliest_tokens_are_those_of_transformers(folder: Path, prompt: str | None) -> None:
    generated = BlipCaptioner(folder, CPU, prompt)(images(), [1, 2, 3], 1, sampling(top_p=1e-9))
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    processor = BlipProcessor.from_pretrained(folder)
    prefix = "a picture of" if prompt is None else prompt
    for image, captions in zip(images(), generated, strict=True):
        read = processor(images=image, text=prefix, return_tensors="pt")
        ids = model.generate(**read, do_sample=False, max_new_tokens=8, min_new_tokens=1)
        whole = processor.decode(ids[0], skip_special_tokens=True, clean_up_tokenization_spaces=True)
        assert captions == [whole.removeprefix(prefix).strip()] and whole.startswith(prefix)


def test_captions_follow_from_the_image_and_its_seed(folder: Path) -> None:
    captioner, some = BlipCaptioner(folder, CPU), images()
    together = captioner(some, [1, 2, 3], 4, sampling())
    assert [len(texts) for texts in together] == [4, 4, 4] and len({text for texts in together for text in texts}) > 6
    assert together == [
        captioner([image], [seed], 4, sampling())[0] for image, seed in zip(some, (1, 2, 3), strict=True)
    ]
    assert captioner(some, [1, 2, 4], 4, sampling())[2] != together[2]
    assert set(captioner.weights()) == set(BlipForConditionalGeneration.from_pretrained(folder).state_dict())


def test_what_is_no_captioner_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=r"is no captioning BLIP .*; give blip:<folder or hub id"):
        BlipCaptioner(tmp_path, CPU)
    with pytest.raises(CheckpointMismatch, match="is a BLIP that reads questions"):
        BlipCaptioner(write_blip(tmp_path / "vqa", BlipForQuestionAnswering), CPU)
    with pytest.raises(ConfigError, match="dtype 'float8' is unknown; use one of float32"):
        BlipCaptioner(folder, CPU, dtype="float8")
    with pytest.raises(ConfigError, match="max_new_tokens 30 behind a prompt of 4 tokens is more than the 32"):
        BlipCaptioner(folder, CPU)(images(1), [1], 1, sampling(max_new_tokens=30))


def test_captions_are_written_as_by_transformers_4(tmp_path: Path) -> None:
    """What 4.57.6 gave for these tokens."""
    words = "a man dog hat isn t s , . ? ! - is do n".split()
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path, [*words, "'"]))
    for text, written in (
        ("a man's hat", "a man's hat"),
        ("a dog isn't a hat, is a man?", "a dog isn't a hat, is a man?"),
        ("a man - a dog!", "a man - a dog!"),
        ("do n't.", "don't."),
    ):
        assert decode_word_pieces(tokenizer, tokenizer(text).input_ids) == written
