from pathlib import Path

import torch
from report_cases import captioning, example
from shard_files import write_tokenizer
from tiny import image_text_model

from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.evaluation.report.content import Example
from blip2_train.evaluation.report.word_views import token_words, with_word_views
from blip2_train.models.word_maps import word_maps


def processor(folder: Path, length: int = 12) -> Processor:
    tokenizer = load_qformer_tokenizer(write_tokenizer(folder, ["two", "red", "fox", "##es", "cat", "a"]))
    return Processor(image_size=32, max_text_length=length, mean=(0.0,) * 3, std=(1.0,) * 3, text_tokenizer=tokenizer)


def pixels(example: Example) -> torch.Tensor:
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(int(example.id)))


def test_tokens_belong_to_the_words_as_they_are_written(tmp_path: Path) -> None:
    assert token_words(processor(tmp_path), "Two red  FOXES!") == (["Two", "red", "FOXES!"], [[1], [2], [3, 4]])
    assert token_words(processor(tmp_path, length=4), "two red foxes") == (["two", "red", "foxes"], [[1], [2], []])
    assert token_words(processor(tmp_path), "") == ([], [])


def test_a_word_has_the_sum_of_its_tokens_maps(tmp_path: Path) -> None:
    model, reader = image_text_model().eval(), processor(tmp_path)
    examples = [example(1, prediction="two foxes"), example(2, prediction=" ")]
    with torch.inference_mode():  # as evaluation calls it
        task = with_word_views(captioning(examples=examples), model, reader, pixels)
    first, second = task.examples
    (maps,) = word_maps(model, pixels(first)[None], *reader.texts(["two foxes"]))
    assert [one.word for one in first.words] == ["two", "foxes"] and second.words == ()
    assert first.words[0].heat is not None and first.words[1].heat is not None
    torch.testing.assert_close(first.words[0].heat, maps[1])
    torch.testing.assert_close(first.words[1].heat, maps[2] + maps[3])
