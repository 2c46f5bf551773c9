"""Reads and writes predictions in the format of the evaluation servers of COCO, NoCaps and VQA."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from blip2_train.data.official.identities import check_identities
from blip2_train.data.official.pictures import naming, read_json
from blip2_train.data.whole_file import write_whole
from blip2_train.errors import ShardError

CAPTIONS = ("image_id", "caption")
ANSWERS = ("question_id", "answer")
GQA_ANSWERS = ("questionId", "prediction")


def read_results(path: str | Path, names: tuple[str, str]) -> dict[int | str, str]:
    """Predictions by id, in the order of the file.

    Args:
        path: `[{"image_id": 42, "caption": "a dog"}]`, or the like.
        names: Names of id and text: `CAPTIONS`, `ANSWERS` or `GQA_ANSWERS`.

    Raises:
        ShardError: if the file cannot be read, has another format, holds annotations, or an id comes twice.
    """
    identity, text = names
    form = f'[{{"{identity}": …, "{text}": …}}]'
    content = read_json(path, form)
    if isinstance(content, dict):
        if {"annotations", "questions", "images"} & content.keys():
            raise ShardError(
                f"{path} is an annotation or question file, not predictions of the form {form}; are predictions and "
                "annotations exchanged?"
            )
        raise ShardError(f"{path} is not a list of predictions of the form {form}")
    found: dict[int | str, str] = {}
    for number, entry in enumerate(content):
        with naming(path, number, form):
            key, said = _checked(entry[identity], entry[text])
        if key in found:
            raise ShardError(f"{path}: {identity} {key!r} comes twice; keep one prediction for each")
        found[key] = said
    return found


def write_caption_results(path: str | Path, captions: Mapping[int, str], pictures: Collection[int]) -> None:
    """Captions as the servers of COCO and NoCaps take them; a file is there as a whole or not at all.

    Args:
        path: COCO's server wants the names `captions_<val2014 or test2014>_<algorithm>_results.json`.
        captions: By picture.
        pictures: Numbers of all pictures of the split, in the order to write.

    Raises:
        ConfigError: if a picture has no caption, or a caption no picture.
    """
    check_identities(captions, dict.fromkeys(pictures), reference="a place in the split")
    write_json(path, [{"image_id": key, "caption": captions[key]} for key in pictures])


def write_answer_results(path: str | Path, answers: Mapping[int | str, str], questions: Collection[int | str]) -> None:
    """Answers as the server of VQA takes them for test-dev and test-std; a file is there as a whole or not at all.

    Args:
        path: The server wants `vqa_OpenEnded_mscoco_<test-dev2015 or test2015>_<algorithm>_results.json`.
        answers: By question.
        questions: Numbers of all questions of the split, in the order to write.

    Raises:
        ConfigError: if a question has no answer, or an answer no question.
    """
    check_identities(
        answers, dict.fromkeys(questions), thing="question", prediction="answer", reference="a place in the split"
    )
    write_json(path, [{"question_id": key, "answer": answers[key]} for key in questions])


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file, with its folder; it is there as a whole or not at all."""
    write_whole(Path(path).expanduser(), json.dumps(content, indent=indent) + "\n")


def _checked(key: Any, said: Any) -> tuple[int | str, str]:
    if type(key) not in (int, str):
        raise TypeError(f"id {key!r} is neither number nor text")
    if not isinstance(said, str):
        raise TypeError(f"{said!r} is no text")
    return key, said
