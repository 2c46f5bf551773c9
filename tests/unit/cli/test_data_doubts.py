"""Warnings about data that a run could train on: hundreds of epochs, captions that are names, unknown tokens."""

from __future__ import annotations

import pytest
import torch

from blip2_train.cli.data_doubts import caption_doubts, epoch_doubts, unknown_doubts, word_count
from blip2_train.data.batches.unknown_tokens import UnknownTokens
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.data.stream.inspection import Inspection, SeenImage
from blip2_train.data.stream.mixture import Mixture
from blip2_train.data.stream.plan import DataPlan, ImageBytes, SourcePlan
from blip2_train.types import ImageTextSample, QuestionSample

IMAGE = torch.zeros(3, 1, 1)


def plan(*sources: tuple[str, int, float]) -> DataPlan:
    """A plan of sources with names, samples and shares."""
    return DataPlan(
        sources=tuple(
            SourcePlan(name=n, files=1, samples=s, rejected={}, share=w, drawn=1, bytes=1, in_shards=False)
            for n, s, w in sources
        ),
        mixture=Mixture([share for _, _, share in sources], 0),
        validation_samples=0,
        held_out=0,
        steps=1,
        first_step=0,
        shape=BatchShape(global_batch_size=2, world_size=1, accumulate=1),
        workers=0,
        image_bytes=ImageBytes(1, 1),
    )


def seen(samples: list[ImageTextSample]) -> Inspection:
    images = tuple(SeenImage(index=n, where=str(n), image_id=n, content=b"", texts=(s,)) for n, s in enumerate(samples))
    return Inspection(source="mine", use="training", samples=len(images), images=images, broken=())


def captions(*texts: str) -> Inspection:
    return seen([ImageTextSample(pixel_values=IMAGE, caption=text, image_id=1, sample_id="") for text in texts])


def test_hundreds_of_epochs() -> None:
    few = plan(("mine", 50, 1.0))
    (line,) = epoch_doubts(few, steps=660, batch=64)
    assert line == (
        "mine: 660 steps of 64 are 845 epochs of its 50 samples, which a model then knows by heart; epochs=10 would be "
        "8 steps"
    )
    assert epoch_doubts(few, steps=77, batch=64) == [] != epoch_doubts(few, steps=79, batch=64), "99 and 101 epochs"


def test_of_a_mixture_the_source_that_repeats_is_named() -> None:
    mixed = plan(("large", 100_000, 0.5), ("small", 100, 0.5))
    (line,) = epoch_doubts(mixed, steps=1000, batch=64)
    assert line.startswith("small: 1,000 steps of 64 are 320 epochs of its 100 samples")


def test_captions_that_are_names() -> None:
    (line,) = caption_doubts(captions("a bus", "car", "a red bus on a street", "Cat."))
    assert line.startswith("mine (training): 3 of 4 captions have at most 2 words (median 1), as 'a bus'; ")
    assert caption_doubts(captions("a bus", "a red bus", "two dogs run")) == []
    answer = QuestionSample(
        pixel_values=IMAGE, caption="yes", image_id=1, sample_id="", question="is it?", question_id=1, question_type=""
    )  # fmt: skip
    assert caption_doubts(seen([answer])) == [], "answers may be short"


@pytest.mark.parametrize(
    ("text", "words"), [("一只红色的猫", 6), ("두 마리 개", 3), ("แมว", 3), ("12 . ! 7", 0), ("t-shirt", 1)]
)
def test_words_of_any_script(text: str, words: int) -> None:
    assert word_count(text) == words


def test_unknown_tokens_are_doubted_before_they_are_refused() -> None:
    part = captions("a q")
    (line,) = unknown_doubts(part, UnknownTokens(unknown=6, tokens=100, example="a q"))
    assert line.startswith("mine (training): 6.0 % of 100 tokens are unknown to the tokenizer, the first in 'a q'; ")
    assert unknown_doubts(part, UnknownTokens(unknown=4, tokens=100, example="a q")) == []
