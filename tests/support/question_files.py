"""A small question–answer set in VQAv2's format with its images, and the command line of a run on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shard_files import WORDS, image
from tiny_run import TINY

ANSWERS = (("red",) * 7 + ("blue",) * 3, ("2",) * 10, ("yes",) * 6 + ("no",) * 4, ("on the left",) * 10)
QUESTIONS = ("what color is the cat?", "how many dogs are there?", "is it a cat?", "where is the dog?")
COUNT = 24


def write_questions(folder: Path, count: int = COUNT, split: str = "train") -> Path:
    """`questions.json`, `annotations.json` and `images/<image id>.jpg`; two questions about each image."""
    (folder / "images").mkdir(parents=True)
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        identity = {"question_id": 100 + number, "image_id": number // 2}
        questions.append({**identity, "question": QUESTIONS[number % 4]})
        answers = [{"answer": answer} for answer in ANSWERS[number % 4]]
        kind = " ".join(QUESTIONS[number % 4].split()[:2])
        annotations.append({**identity, "answers": answers, "question_type": kind, "answer_type": "other"})
        (folder / f"images/{number // 2}.jpg").write_bytes(image((number // 2 * 9, 40, 200 - number // 2 * 9)))
    (folder / "questions.json").write_text(json.dumps({"data_subtype": split, "questions": questions}))
    (folder / "annotations.json").write_text(json.dumps({"data_subtype": split, "annotations": annotations}))
    return folder


def source(folder: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of `QuestionSourceConfig` for such a folder."""
    return {
        "path": str(folder / "questions.json"),
        "annotations": str(folder / "annotations.json"),
        "images": str(folder / "images"),
        "picture_name": "{image_id}.jpg",
        **changes,
    }


def arguments(folder: Path, questions: Path) -> list[str]:
    """Overrides of a run of `demo_vqa` that takes a second; its tokenizer is `<folder>/../tokenizer`."""
    where = {
        f"{node}.{key}": value
        for node in ("data.sources.0", "data.validation")
        for key, value in source(questions).items()
    }
    fields = [f"{key}='{value}'" for key, value in where.items()]
    shrunk = [item for item in TINY if not item.startswith(("experiment=", "data", "max_text_length"))]
    return [
        "experiment=demo_vqa",
        *shrunk,
        *fields,
        "data.sources.0.shards=null",
        "data.prepare=null",
        "data.validation_samples=6",
        "max_text_length=24",
        "init_from=null",
        "init_text_from=null",
        "module.generation.max_new_tokens=4",
        "module.generation.num_beams=2",
        f"tokenizer={folder.parent / 'tokenizer'}",
        f"paths.output_dir={folder}",
    ]


VOCABULARY = len(WORDS) + 6
