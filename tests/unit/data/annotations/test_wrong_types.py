"""Whatever stands in a field of others' files, it is read, or refused in one line that names file, entry and field."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blip2_train.data.annotations.captions import read_captions, read_references
from blip2_train.data.annotations.questions import read_questions
from blip2_train.data.annotations.results import ANSWERS, CAPTIONS, read_results
from blip2_train.data.annotations.visual_questions import named_image
from blip2_train.data.official.candidates import read_candidates
from blip2_train.data.sources.annotation_source import AnnotationSource, identity_of
from blip2_train.errors import ShardError

DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
LONG = "a long number"
"""Stands for 5,000 digits, which Python's own writer refuses."""
WRONG: dict[str, Any] = {
    "null": None,
    "whole number": 7,
    "number": 1.5,
    "truth": True,
    "nothing": "",
    "blanks": " \n",
    "two lines": "a\nb",
    "address": "https://x.org/a\nb",
    "text": "a text",
    "half an emoji": "a \ud83d",
    "empty list": [],
    "nested lists": [["a", ["b"]], "c"],
    "nulls in a list": ["a", None],
    "object": {"caption": "a"},
    "objects": [{"answer": None}, {"x": 1}, 3],
    "deep lists": DEEP,
    "5,000 digits": LONG,
    "5,000 digits in a text": "1" * 5000,
    "5,000 digits in an id": "coco_" + "1" * 5000,
    "more than 64 bits": 10**30,
}
NOTE = {"id": 1, "image_id": 5, "caption": "five"}
ANSWER = {"question_id": 1, "image_id": 5, "answers": [{"answer": "yes"}], "answer_type": "yes/no"}
CAPTION_FILES: dict[str, Any] = {
    "coco": {"images": [{"id": 5, "file_name": "5.jpg", "domain": "in-domain"}], "annotations": [NOTE]},
    "karpathy": {"images": [{"filename": "5.jpg", "filepath": "a", "cocoid": 5, "sentences": [{"raw": "five"}]}]},
    "regions": [{"id": 5, "regions": [{"image_id": 5, "phrase": "five"}]}],
    "list": [{"image": "5.jpg", "caption": "five", "image_id": 5, "split": "train"}],
    "list of captions": [{"image": "5.jpg", "caption": ["five", "5"]}],
}
QUESTION_FILES: dict[str, Any] = {
    "vqa": {"questions": [{"question_id": 1, "image_id": 5, "question": "is it?", "answer": "yes"}]},
    "list": [{"question_id": 1, "image": "5.jpg", "question": "is it?", "answers": ["yes", "no"]}],
    "genome": [{"id": 5, "qas": [{"qa_id": 1, "question": "is it?", "answer": "Yes."}]}],
    "flat genome": [{"id": 1, "image": 5, "question": "is it?", "answer": "Yes."}],
    "gqa": {"01": {"imageId": "n5", "question": "is it?", "answer": "yes", "types": {"semantic": "obj"}}},
}


def variants(content: Any) -> Iterator[tuple[str, Any]]:
    """The same with every value in it, and every key, replaced in turn."""

    def walk(node: Any, path: list[Any]) -> Iterator[list[Any]]:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield [*path, key]
            yield from walk(node[key], [*path, key])

    for path in walk(content, []):
        for name, value in {**WRONG, "missing": LONG}.items():
            changed = copy.deepcopy(content)
            node = changed
            for key in path[:-1]:
                node = node[key]
            if name == "missing":
                del node[path[-1]]
            else:
                node[path[-1]] = value
            yield f"{path} {name}", changed


def written(path: Path, content: Any) -> Path:
    text = json.dumps(content).replace(json.dumps(LONG), "1" * 5000)
    path.write_text(text)
    return path


def reads_or_raises(path: Path, read: Callable[[Path], Any], what: str) -> str:
    """The message, or nothing if it is read; fails for anything but one short line that names the file."""
    try:
        read(path)
    except ShardError as error:
        message = str(error)
        assert "\n" not in message and message.startswith((str(path), f"annotation file {path}")), (what, message)
        assert len(message) < 700 + len(str(path)), (what, message)
        return message
    return ""


def trained(path: Path) -> None:
    images = read_captions(path, "train" if '"train"' in path.read_text() else None)
    assert all(isinstance(text, str) for image in images for text in image.captions) and images.fingerprint
    assert all(identity_of(image.identity, "own") < 2**63 for image in images)


def evaluated(path: Path) -> None:
    for image in read_references(path, "train" if '"train"' in path.read_text() else None):
        assert type(image.identity) in (int, str) and all(isinstance(text, str) for text in image.captions)


@pytest.mark.slow
@pytest.mark.parametrize("read", [trained, evaluated])
@pytest.mark.parametrize("layout", CAPTION_FILES)
def test_captions(layout: str, read: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    read(written(path, CAPTION_FILES[layout]))
    refused = sum(
        bool(reads_or_raises(written(path, one), read, what)) for what, one in variants(CAPTION_FILES[layout])
    )
    assert refused > 20


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("layout", QUESTION_FILES)
def test_questions(layout: str, strict: bool, tmp_path: Path) -> None:
    def read(path: Path) -> None:
        for one in read_questions(path, strict=strict):
            assert isinstance(one.question, str) and all(isinstance(text, str) for text in one.answers)
            assert isinstance(one.question_type + one.answer_type + one.image, str)
            named_image("{image_id}.jpg", one.image_id)

    path = tmp_path / "file.json"
    read(written(path, QUESTION_FILES[layout]))
    refused = sum(
        bool(reads_or_raises(written(path, one), read, what)) for what, one in variants(QUESTION_FILES[layout])
    )
    assert refused > 20


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
def test_annotations_of_questions(strict: bool, tmp_path: Path) -> None:
    questions = written(tmp_path / "q.json", [{"question_id": 1, "image_id": 5, "question": "is it?"}])
    path = tmp_path / "file.json"
    for whole in ({"annotations": [ANSWER]}, [ANSWER], [{"question_id": 1, "multiple_choice_answer": "yes"}]):
        (one,) = read_questions(questions, written(path, whole), strict=strict)
        assert one.answers == ("yes",)
        for what, content in variants(whole):
            written(path, content)
            try:
                read_questions(questions, path, strict=strict)
            except ShardError as error:
                assert "\n" not in str(error) and str(path) in str(error), what


@pytest.mark.parametrize(("names", "entry"), [(CAPTIONS, NOTE), (ANSWERS, {"question_id": 1, "answer": "yes"})])
def test_predictions_and_candidates(names: tuple[str, str], entry: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    refused = [
        reads_or_raises(written(path, one), lambda path: read_results(path, names), what)
        for what, one in variants([entry])
    ]
    assert f"file.json, entry 1: {names[1]} None is no text" in "".join(refused)
    for content in (DEEP, [None], [["a"]], {"a": "b"}, [3]):
        with pytest.raises(ShardError, match="answer list"):
            read_candidates(written(path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"id": 5, "file_name": 5}], "annotations": [NOTE]}, "entry 1 of images: file_name 5 is no name"),
        (
            {"images": [{"id": 5, "file_name": "5.jpg"}], "annotations": [NOTE | {"caption": [["a"]]}]},
            "caption .* is no",
        ),
        (
            [{"image": "5.jpg", "caption": [["a"]]}],
            r"entry 1: caption is \[\['a'\]\]; write a text, or a list of texts",
        ),
        (
            [{"image": "5.jpg", "caption": "five", "image_id": LONG}],
            "entry 1: image_id a number of 5,000 digits is neith",
        ),
        ([{"image": LONG, "caption": "five"}], "entry 1: image is a number of 5,000 digits"),
    ],
)
def test_the_message_names_entry_and_field(content: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "file.json", content)
    with pytest.raises(ShardError, match=f"{re.escape(str(path))}, .*{message}"):
        list(read_captions(path))


@pytest.mark.parametrize("name", ["file.json", "file.jsonl"])
def test_json_too_deep_to_parse(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"image": "a.jpg", "caption": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    read: list[Callable[[Path], Any]] = [read_captions, read_references, read_questions]
    for one in (
        *read,
        lambda path: read_results(path, CAPTIONS),
        lambda path: AnnotationSource(str(path), None, None, "a"),
    ):
        assert "lists within lists, too deep to be read" in reads_or_raises(path, one, name)


def test_null_captions_are_counted_in_training_and_refused_in_evaluation(tmp_path: Path) -> None:
    (tmp_path / "5.jpg").write_bytes(b"")
    content = {
        "images": [{"id": 5, "file_name": "5.jpg"}],
        "annotations": [NOTE, NOTE | {"id": 2, "caption": None}],
    }
    path = written(tmp_path / "file.json", content)
    source = AnnotationSource(str(path), None, None, "own")
    assert source.read(0).captions == ("five", "")
    assert [(one.reason, one.detail) for one in source.rejected] == [
        ("blank caption", "entry 1 of images: caption 2 of 2 is blank")
    ]
    with pytest.raises(ShardError, match=r"file.json, entry 2 of annotations: caption None is no text"):
        read_references(path)
