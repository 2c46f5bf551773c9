"""What the language model reads and what it is to say, on the real tokenizers of the demo."""

from pathlib import Path

import pytest
import torch
from published_tokenizers import write_language_model

from blip2_train.config.compose import asset
from blip2_train.data.batches.generation_collate import (
    DecoderOnlyCollator,
    EncoderDecoderCollator,
    load_decoder_only_collator,
    load_encoder_decoder_collator,
    split_words,
)
from blip2_train.errors import ConfigError
from blip2_train.types import ImageTextSample


def sample(caption: str, uniform: float = 0.0) -> ImageTextSample:
    return ImageTextSample(
        pixel_values=torch.zeros(3, 4, 4),
        caption=caption,
        image_id=7,
        sample_id="a/0#0",
        references=(caption,),
        uniform=uniform,
    )


def opt(**options) -> DecoderOnlyCollator:  # type: ignore[no-untyped-def]
    return load_decoder_only_collator(name=asset("demo/opt"), **({"max_text_length": 12, "end_token": "\n"} | options))


def t5(**options) -> EncoderDecoderCollator:  # type: ignore[no-untyped-def]
    return load_encoder_decoder_collator(name=asset("demo/t5"), **({"max_text_length": 12} | options))


def decoded(collator: DecoderOnlyCollator | EncoderDecoderCollator, row: torch.Tensor) -> str:
    return str(collator.tokenizer.tokenizer.decode(row[row != -100]))


def test_opt_reads_start_text_and_end_and_learns_text_and_end() -> None:
    collator = opt()
    batch = collator([sample("a fox on red"), sample("a fire engine and a fox on a red ground")])
    start, end = collator.tokenizer.tokenizer.bos_token_id, collator.tokenizer.text_ids("\n")[0]
    first = batch.input_ids[0][batch.attention_mask[0]]
    assert first[0] == start and first[-1] == end and (first == end).sum() == 1
    assert not batch.attention_mask[0, -1]  # padding on the right
    assert batch.labels[0, 0] == -100 and (batch.labels[0][~batch.attention_mask[0]] == -100).all()
    assert decoded(collator, batch.labels[0]) == "a fox on red\n"
    assert batch.target_positions.tolist() == [i for i, v in enumerate(batch.labels.flatten().tolist()) if v != -100]
    assert batch.references == (("a fox on red",), ("a fire engine and a fox on a red ground",))


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_truncation_never_cuts_end_or_prompt(prompt: str) -> None:
    collator = opt(max_text_length=9, prompt=prompt)
    batch = collator([sample("a fox " * 40)])
    assert batch.input_ids.shape == (1, 9)
    text = collator.tokenizer.tokenizer.decode(batch.input_ids[0, 1:])
    assert text.startswith(prompt) and text.endswith("\n")


@pytest.mark.parametrize("caption", ["a fox on red", "fox", "two foxes", "xylophones of glass"])
def test_the_prompt_is_not_learnt_and_the_text_is_whole(caption: str) -> None:
    batch = (collator := opt(prompt="a photo of", max_text_length=30))([sample(caption)])
    assert decoded(collator, batch.labels[0]) == f" {caption}\n"
    assert collator.tokenizer.tokenizer.decode(batch.input_ids[0, 1:]) == f"a photo of {caption}\n"


def test_the_released_code_learns_the_start_token_too() -> None:
    batch = opt(learn_start=True)([sample("a fox")])
    assert batch.labels[0, 0] == batch.input_ids[0, 0]


@pytest.mark.parametrize(
    ("uniform", "prefix", "rest"), [(0.0, "a", "fox on a red ground"), (0.999, "a fox on", "a red ground")]
)
def test_t5_encodes_a_prefix_and_labels_the_rest(uniform: float, prefix: str, rest: str) -> None:
    batch = (collator := t5())([sample("a fox on a red ground", uniform)])
    assert decoded(collator, batch.input_ids[0]) == f"{prefix}</s>"
    assert decoded(collator, batch.labels[0]) == f"{rest}</s>"


def test_a_caption_of_one_word_has_an_empty_prefix() -> None:
    batch = (collator := t5())([sample("fox", 0.7)])
    assert decoded(collator, batch.input_ids[0]) == "</s>" and decoded(collator, batch.labels[0]) == "fox</s>"


def test_the_cut_is_uniform_from_the_first_word_to_the_middle() -> None:
    ids = "one two three four five six seven"
    cuts = [len(split_words(ids, i / 3000)[0].split()) for i in range(3000)]
    assert [cuts.count(k) for k in (1, 2, 3)] == [1000, 1000, 1000]


def test_t5_encodes_a_prompt_and_labels_the_whole_caption() -> None:
    batch = (collator := t5(prompt="a photo of", split_prefix=False))([sample("a fox on red", 0.5)])
    assert decoded(collator, batch.input_ids[0]) == "a photo of</s>"
    assert decoded(collator, batch.labels[0]) == "a fox on red</s>"


def test_both_sides_of_t5_keep_their_end_token_when_cut() -> None:
    batch = t5(max_text_length=4)([sample("a fox " * 30, 0.99)])
    end = t5().tokenizer.end_id
    assert batch.input_ids.shape == batch.labels.shape == (1, 4)
    assert batch.input_ids[0, -1] == batch.labels[0, -1] == end


@pytest.mark.parametrize(
    ("make", "ids"),
    [
        (lambda: opt(prompt="a photo of a fox on a red ground", max_text_length=8), "leaves no room"),
        (lambda: t5(prompt="a photo of a fox on a red ground", max_text_length=5), "shorten it"),
        (lambda: opt(end_token="no such token"), "single token"),
    ],
)
def test_what_cannot_work_is_refused(make, ids: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=ids):
        make()


def test_bart_starts_both_sides_and_the_mask_marks_padding(tmp_path: Path) -> None:
    """Also with a start that is set by hand; labels behind the end are none, whatever the padding token is."""
    folder = write_language_model("bart", tmp_path / "bart")
    for start in (None, "<s>"):
        collator = load_encoder_decoder_collator(
            name=str(folder), max_text_length=20, split_prefix=False, start_token=start, pad_token="</s>"
        )
        batch = collator([sample("a cat"), sample("two birds in a red tree")])
        ids = collator.tokenizer.text_ids("a cat")
        assert batch.input_ids.tolist() == [[0, 2]] * 2
        assert batch.labels[0].tolist() == [0, *ids, 2] + [-100] * (batch.labels.shape[1] - len(ids) - 2)
