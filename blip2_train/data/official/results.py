"""Writes predictions in the format of the evaluation servers of COCO, NoCaps and VQA."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from blip2_train.data.official.identities import check_identities
from blip2_train.whole_file import write_whole


def write_caption_results(path: str | Path, captions: Mapping[int | str, str], pictures: Collection[int | str]) -> None:
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
