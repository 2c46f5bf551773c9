"""Whoever generates text by a language model reads prompts once: no way leads to transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_writer import QUESTIONS, shown, writer
from torch import Tensor
from transformers import GenerationMixin

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.evaluation.capfilt import CapFiltOptions
from blip2_train.evaluation.caption_sampling import Blip2Captioner
from blip2_train.evaluation.captioning import CaptioningTask
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.question_answering import AnsweringTask
from blip2_train.models import generative, text_generation
from blip2_train.models.configs import GenerationOptions
from blip2_train.training.generation import GenerationModule

SHORT: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 4}
IMAGES = [AnnotatedImage(image_id=number, path=f"{number}.png", captions=("a cat",)) for number in range(2)]
ABOUT_ONE = [
    VisualQuestion(
        question_id=number, image_id=1, image="a.png", question=text, answers=("cat",) * 10, question_type="",
        answer_type="",
    )
    for number, text in enumerate(QUESTIONS[:2])
]  # fmt: skip


def captioning_task(model: Blip2, pixels: Tensor) -> None:
    task = CaptioningTask("set", "A set", IMAGES, Path(), generation=SHORT)
    task.start(model)
    task.predict(model, 0, pixels)


def validation(model: Blip2, pixels: Tensor) -> None:
    network = model.generative("validation")
    module: Any = SimpleNamespace(
        model=network, tokenizer=model.processor.language_tokenizer, device=model.device,
        generation=GenerationOptions(**SHORT),
    )  # fmt: skip
    assert len(GenerationModule.generate_texts(module, pixels, ["a cat", "what is it?"])) == 2


WAYS: dict[str, Callable[[Blip2, Tensor], object]] = {
    "caption": lambda model, pixels: model.caption(pixels, **SHORT),
    "sample": lambda model, pixels: model.caption(pixels, do_sample=True, seed=1, max_new_tokens=4),
    "answer": lambda model, pixels: model.answer(pixels, QUESTIONS[:2], **SHORT),
    "rank": lambda model, pixels: model.answer(pixels, QUESTIONS[:2], candidates=["a cat", "two"]),
    "chat": lambda model, pixels: model.chat(pixels[0], [("what?", "a cat")], "is it red?", **SHORT),
    "CapFilt": lambda model, pixels: Blip2Captioner(model, "a")(
        shown(2), [1, 2], 3, CapFiltOptions(max_new_tokens=4).generation
    ),
    "task of captions": captioning_task,
    "task of questions": lambda model, pixels: AnsweringTask(
        "vqa", "VQA", ABOUT_ONE, Path(), generation=SHORT
    ).predict(model, 0, pixels),
    "validation": validation,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["opt", "t5"])
def test_prompts_are_read_once(way: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = writer(family)
    pixels = model.processor.images(shown(2))
    rows: list[int] = []

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("transformers generates")

    monkeypatch.setattr(GenerationMixin, "generate", refused)
    for module in (text_generation, generative):
        read: Any = module.read_prompts  # type: ignore[attr-defined]

        def counted(language_model: Any, embeddings: Tensor, *others: Any, read: Any = read) -> Any:
            rows.append(len(embeddings))
            return read(language_model, embeddings, *others)

        monkeypatch.setattr(module, "read_prompts", counted)
    WAYS[way](model, pixels)
    assert rows == {"chat": [1], "rank": [1, 1]}.get(way, [2])
