"""Many questions about one image: it is read and encoded once, and each answer is as if it were options alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from demo_exports import write_exports
from tiny_writer import shown, writer

from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.data.batches.language_tokenizer import AnsweringTokenizer
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.question_answering import AnsweringTask
from blip2_train.evaluation.same_images import by_image, same_image
from blip2_train.pretrained import load_pretrained

CANDIDATES = ["cat", "red", "dog", "green", "fox", "car", "left", "apple", "two", "of", "the", "is", "a", "blue"]
QUESTIONS = ["what", "how many red apples are there", "is it a dog", "what is above the red fox"]
SHORT: dict[str, Any] = {"max_new_tokens": 5, "num_beams": 2, "prompt": "{}"}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


def encoded(model: Blip2) -> list[int]:
    """Images that pass the tower, call by call."""
    counts: list[int] = []
    model.network.vision_model.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    return counts


def instructed() -> Blip2:
    """A model whose Q-Former reads the questions."""
    assets = Path(__file__).parents[3] / "blip2_train/assets/demo"
    model = writer("opt", reads_questions=True, qformer={"vocab_size": 4000})
    words = load_qformer_tokenizer(str(assets / "bert"))
    tokenizer = AnsweringTokenizer(
        str(assets / "opt"), words, padding_side="left", encoder_decoder=False, end_token="\n"
    )
    object.__setattr__(model.processor, "language_tokenizer", tokenizer)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: writer("opt"), lambda: writer("t5"), instructed], ids=["opt", "t5", "reads"])
@pytest.mark.parametrize("options", [SHORT, {"candidates": CANDIDATES, "prompt": "{}"}], ids=["generated", "ranked"])
def test_one_image_is_encoded_once(make: Any, options: dict[str, Any]) -> None:
    model = make()
    model.network.double()
    pixels = [model.processor.image(image).double() for image in shown(3)]
    alone = [[model.answer(image, text, **options)[0] for text in QUESTIONS] for image in pixels]
    assert len({answer for row in alone for answer in row}) > 2
    counts = encoded(model)
    assert model.answer(pixels[0], QUESTIONS, batch_size=3, **options) == alone[0]
    assert counts == [1]
    counts.clear()
    images = [pixels[0]] * 4 + [pixels[1]] * 4 + [pixels[2]] * 4
    assert model.answer(images, QUESTIONS * 3, batch_size=5, **options) == alone[0] + alone[1] + alone[2]
    assert counts == [2, 1]
    counts.clear()
    mixed = [pixels[0], pixels[1], pixels[2]] * 4  # brought together before
    answers = model.answer(mixed, [text for text in QUESTIONS for _ in range(3)], batch_size=12, **options)
    assert answers == [alone[image][question] for question in range(4) for image in range(3)]
    assert counts == [3]


PROMPTS = ["a cat", "", "the red apple is", "two"]


@pytest.mark.parametrize("kind", ["opt", "t5", "stage1"])
@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}], ids=str)
def test_several_prompts_of_an_image_encode_it_once(
    kind: str, options: dict[str, Any], exports: dict[str, str]
) -> None:
    model = load_pretrained(exports["stage1"])[0] if kind == "stage1" else writer(kind)
    model.network.double()
    options = {"max_new_tokens": 5} | options
    each = options.get("num_return_sequences", 1)
    pixels = [model.processor.image(image).double() for image in shown(3)]
    alone = [[model.caption(image, prompt=prompt, **options) for prompt in PROMPTS] for image in pixels]
    assert len({text for row in alone for texts in row for text in texts}) > 2
    counts = encoded(model)
    assert model.caption(pixels[0], prompt=PROMPTS, batch_size=3, **options) == [
        text for texts in alone[0] for text in texts
    ]
    assert counts == [1]
    counts.clear()
    images = [image for image in pixels for _ in PROMPTS]
    texts = model.caption(images, prompt=PROMPTS * 3, batch_size=3, **options)
    assert texts == [text for row in alone for some in row for text in some] and len(texts) == 12 * each
    assert sum(counts) == 3
    mixed = model.caption([pixels[0], pixels[1]] * 2, prompt=["a cat", "two", "two", "a cat"], **options)
    assert mixed == alone[0][0] + alone[1][3] + alone[0][3] + alone[1][0]
    with pytest.raises(ConfigError, match="2 images, but 3 prompts; give one for each, or one in all"):
        model.caption(pixels[:2], prompt=PROMPTS[:3])


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = writer("opt")
    path = tmp_path / "a.png"
    shown()[0].save(path)
    reads: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or read(self))  # type: ignore[func-returns-value]
    expected = [model.answer(path, text, **SHORT)[0] for text in QUESTIONS]
    reads.clear()
    assert model.answer([str(path)] * 4, QUESTIONS, batch_size=2, **SHORT) == expected
    assert reads.count(path) == 1


def test_a_task_encodes_the_image_of_its_questions_once(tmp_path: Path) -> None:
    model = writer("opt")
    questions = [
        VisualQuestion(
            question_id=number, image_id=name, image=name, question=text, answers=("cat",) * 10, question_type="",
            answer_type="",
        )
        for number, (name, text) in enumerate((name, text) for name in ("a.png", "b.png") for text in QUESTIONS)
    ]  # fmt: skip
    task = AnsweringTask("vqa", "VQA", questions, tmp_path, batch_size=8)
    pixels = model.processor.images([image for image in shown(2) for _ in QUESTIONS])
    counts = encoded(model)
    rows = task.predict(model, 0, pixels)
    assert counts == [2] and len(rows) == 8


def test_which_are_the_same() -> None:
    image, values = shown(1)[0], torch.rand(3, 4, 4)
    assert same_image(image, image) and not same_image(image, image.copy())
    assert same_image(values, values.clone()) and not same_image(values, values + 1)
    assert not same_image(values, image) and not same_image("a", image)
    assert by_image([image, "a", values, Path("a"), image]) == [0, 4, 1, 3, 2]
