"""Small evaluations with real images, for tests of the page and what lies beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw

from blip2_train.evaluation.captioning import CaptioningTask
from blip2_train.evaluation.question_answering import AnsweringTask
from blip2_train.evaluation.report.content import Example, TaskReport, TaskSettings
from blip2_train.evaluation.report.image_data import attention_views

SETTINGS = TaskSettings(
    checkpoint="outputs/caption/export",
    checkpoint_fingerprint="ab" * 32,
    data_fingerprints={"captions_val.json": "cd" * 32},
    prompt="a photo of",
    decoding={"num_beams": 5, "length_penalty": 1.0},
    versions={"torch": "2.11"},
)
DOMAINS = ("in-domain", "near-domain", "out-domain")


def image(number: int, size: tuple[int, int] = (60, 40), kind: str = "JPEG") -> bytes:
    """A disc somewhere on a coloured ground."""
    image = Image.new("RGB", size, (40 * number % 256, 90, 200))
    ImageDraw.Draw(image).ellipse((number % 20, 5, number % 20 + 20, 25), fill="yellow")
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def example(number: int, **changes: Any) -> Example:
    """Example `number` has score `number / 10`, and a domain in turn; every second one has attention."""
    values: dict[str, Any] = {
        "id": f"{number:04d}",
        "image": image(number),
        "prediction": f"a disc at {number}",
        "references": (f"a yellow disc number {number}", "a circle"),
        "score": number / 10,
        "domain": DOMAINS[number % 3],
        "attention": attention_views(torch.rand(4, 3, 5)) if number % 2 else (),
    }
    return Example(**(values | changes))


def captioning(count: int = 9, examples: Sequence[Example] | None = None, **changes: Any) -> TaskReport:
    values: dict[str, Any] = {
        "name": "nocaps",
        "title": "NoCaps val",
        "kind": "captioning",
        "labels": CaptioningTask.labels,
        "scores": {"cider": 1.2144, "spice": None, "out-domain/cider": 0.8, "out-domain/bleu_4": 0.3819},
        "reasons": {"spice": "SPICE lacks its models"},
        "settings": SETTINGS,
        "examples": [example(number) for number in range(count)] if examples is None else examples,
        "example_metric": "cider",
    }
    return TaskReport(**(values | changes))


def vqa(count: int = 4, **changes: Any) -> TaskReport:
    values: dict[str, Any] = {
        "name": "vqav2",
        "title": "VQAv2 val",
        "kind": "vqa",
        "labels": AnsweringTask.labels,
        "scores": {"accuracy": 75.04, "answer type yes/no/accuracy": 91.0},
        "settings": SETTINGS,
        "examples": [
            example(
                number, id=f"q{number}", question=f"what is number {number}?", prediction="a disc", score=25.0 * number,
                references=["a disc"] * number + ["ball"] * (10 - number), domain="what is", attention=(),
            )
            for number in range(count)
        ],
        "example_metric": "accuracy",
    }  # fmt: skip
    return TaskReport(**(values | changes))
