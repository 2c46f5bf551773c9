"""Writes predictions in the format of the evaluation servers of COCO, NoCaps and VQA."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from blip2_train.data.official.checks import check_identities
from blip2_train.system.atomic_write import write_atomically


def write_caption_results(path: str | Path, captions: Mapping[int | str, str], images: Collection[int | str]) -> None:
    """Write captions in the format of the servers of COCO and NoCaps, atomically.

    Args:
        path: COCO's server requires the names `captions_<val2014 or test2014>_<algorithm>_results.json`.
        captions: By image.
        images: Ids of all images of the split, in the order of the file.

    Raises:
        ConfigError: if an image has no caption, or a caption no image.
    """
    check_identities(captions, dict.fromkeys(images), reference="a position in the split")
    write_json(path, [{"image_id": key, "caption": captions[key]} for key in images])


def write_answer_results(path: str | Path, answers: Mapping[int | str, str], questions: Collection[int | str]) -> None:
    """Write answers in the format of the server of VQA for test-dev and test-std, atomically.

    Args:
        path: The server requires `vqa_OpenEnded_mscoco_<test-dev2015 or test2015>_<algorithm>_results.json`.
        answers: By question.
        questions: Ids of all questions of the split, in the order of the file.

    Raises:
        ConfigError: if a question has no answer, or an answer no question.
    """
    check_identities(
        answers, dict.fromkeys(questions), thing="question", prediction="answer", reference="a position in the split"
    )
    write_json(path, [{"question_id": key, "answer": answers[key]} for key in questions])


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically; its folder is created if it is missing."""
    write_atomically(Path(path).expanduser(), json.dumps(content, indent=indent) + "\n")
