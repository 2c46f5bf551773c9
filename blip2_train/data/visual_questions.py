"""Reads the question files of VQAv2, OK-VQA, Visual Genome and GQA into one kind of record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.data.official.pictures import naming, read_json
from blip2_train.errors import ShardError

VQA_FORM = '{"questions": [{"question_id": …, "image_id": …, "question": …}]}'
ANNOTATION_FORM = '{"annotations": [{"question_id": …, "image_id": …, "answers": [{"answer": …}]}]}'
LIST_FORM = '[{"image": …, "question": …, "answer": …}]'
GENOME_FORM = '[{"id": …, "qas": [{"qa_id": …, "question": …, "answer": …}]}]'
GQA_FORM = '{"<question id>": {"imageId": …, "question": …, "answer": …}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualQuestion:
    """A question about a picture, with what people answered."""

    question_id: int | str
    """As in the file (a number, of GQA a text that may begin with 0); unique in it."""
    image_id: int | str
    """As in the file; where it has none, the picture's file name."""
    picture: str
    """Path of the picture below its folder, empty if the file does not say it."""
    question: str
    """As written."""
    answers: tuple[str, ...]
    """One for each person who answered, as written; empty if the answers are not published."""
    question_type: str
    """First words of the question (VQAv2), structural type (GQA), or empty."""
    answer_type: str
    """`yes/no`, `number` or `other` (VQAv2), semantic type (GQA), or empty."""


def read_vqa(questions: str | Path, annotations: str | Path | None = None) -> list[VisualQuestion]:
    """The questions of VQAv2 or OK-VQA, in the order of the file.

    Args:
        questions: official question file; or the list of entries with pictures and answers of the released code.
        annotations: official annotation file of the same split; None for a split whose answers are not published.

    Raises:
        ShardError: naming the file and the entry, if a file cannot be read, has another format, the two belong to
            different splits, a question has no annotation, or an id comes twice.
    """
    content = read_json(questions, VQA_FORM)
    if isinstance(content, list):
        if annotations is not None:
            raise ShardError(f"{questions} holds its own answers; leave out the annotation file {annotations}")
        return read_question_list(questions)
    told = {} if annotations is None else _annotations(questions, content, annotations)
    found = []
    for number, entry in enumerate(_entries(questions, content, "questions", VQA_FORM)):
        with naming(questions, number, VQA_FORM):
            identity, image_id = entry["question_id"], entry["image_id"]
            answer = told.pop(identity, None)
            if annotations is not None and answer is None:
                raise ShardError(
                    f"{questions}: question {identity} has no annotation in {annotations}, or comes twice; take the "
                    "annotations of the same split and version"
                )
            if answer is not None and answer["image_id"] != image_id:
                raise ShardError(
                    f"question {identity} is about picture {image_id} in {questions}, but about {answer['image_id']} "
                    f"in {annotations}; take the two files of one split and version"
                )
            found.append(_official(entry, answer or {}))
    if told:
        raise ShardError(
            f"{annotations} has {len(told)} annotations without a question in {questions} (first: {next(iter(told))}); "
            "take the two files of one split and version"
        )
    return _unique(questions, found)


def read_visual_genome(path: str | Path) -> list[VisualQuestion]:
    """The questions of Visual Genome: official `question_answers.json`, or the released code's `vg_qa.json`.

    Raises:
        ShardError: naming the file and the entry, if it cannot be read, has another format, or an id comes twice.
    """
    content = read_json(path, GENOME_FORM)
    if not (isinstance(content, list) and content and isinstance(content[0], Mapping) and "qas" in content[0]):
        return read_question_list(path)
    found = []
    for number, entry in enumerate(content):
        with naming(path, number, GENOME_FORM):
            image_id = entry.get("id", entry.get("image_id"))
            found += [
                VisualQuestion(
                    question_id=asked["qa_id"],
                    image_id=asked["image_id"] if image_id is None else image_id,
                    picture="",
                    question=_text(asked["question"]),
                    answers=(_text(asked["answer"]),),
                    question_type="",
                    answer_type="",
                )
                for asked in entry["qas"]
            ]
    return _unique(path, found)


def read_gqa(path: str | Path) -> list[VisualQuestion]:
    """The questions of GQA: official `<split>_balanced_questions.json`, or the list of entries of the released code.

    Raises:
        ShardError: naming the file and the entry, if it cannot be read, has another format, or an id comes twice.
    """
    content = read_json(path, GQA_FORM)
    if isinstance(content, list):
        return read_question_list(path)
    found = []
    for identity, entry in content.items():
        with naming(path, identity, GQA_FORM):
            types = entry.get("types", {})
            found.append(
                VisualQuestion(
                    question_id=identity,
                    image_id=entry["imageId"],
                    picture=f"{entry['imageId']}.jpg",
                    question=_text(entry["question"]),
                    answers=(_text(entry["answer"]),) if "answer" in entry else (),
                    question_type=types.get("structural") or "",
                    answer_type=types.get("semantic") or "",
                )
            )
    return _unique(path, found)


def read_question_list(path: str | Path) -> list[VisualQuestion]:
    """The released code's form: a list of entries with `image`, `question`, and `answer` as one text or several.

    Raises:
        ShardError: naming the file and the entry, if it cannot be read, has another format, or an id comes twice.
    """
    found = []
    for number, entry in enumerate(_entries(path, read_json(path, LIST_FORM), None, LIST_FORM)):
        with naming(path, number, LIST_FORM):
            answers = entry.get("answer", ())
            found.append(
                VisualQuestion(
                    question_id=entry.get("question_id", number),
                    image_id=entry.get("image_id", entry["image"]),
                    picture=_text(entry["image"]),
                    question=_text(entry["question"]),
                    answers=tuple(_text(answer) for answer in ([answers] if isinstance(answers, str) else answers)),
                    question_type="",
                    answer_type="",
                )
            )
    return _unique(path, found)


def _entries(path: str | Path, content: Any, key: str | None, form: str) -> list[dict[str, Any]]:
    entries = content if key is None else content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ShardError(f"{path} is not of the form {form}; take the official file")
    return entries


def _annotations(
    questions: str | Path, asked: Mapping[str, Any], annotations: str | Path
) -> dict[int | str, dict[str, Any]]:
    """The entries of an annotation file by question id."""
    content = read_json(annotations, ANNOTATION_FORM)
    entries = _entries(annotations, content, "annotations", ANNOTATION_FORM)
    splits = asked.get("data_subtype"), content.get("data_subtype")
    if None not in splits and splits[0] != splits[1]:
        raise ShardError(
            f"{questions} is of {splits[0]!r}, but {annotations} of {splits[1]!r}; take the two files of one split"
        )
    found: dict[int | str, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        with naming(annotations, number, ANNOTATION_FORM):
            if entry["question_id"] in found:
                raise ShardError(f"{annotations}: two annotations of question {entry['question_id']}; remove one")
            found[entry["question_id"]] = entry
            _ = entry["image_id"], entry["answers"][0]["answer"]
    return found


def _official(entry: Mapping[str, Any], annotation: Mapping[str, Any]) -> VisualQuestion:
    return VisualQuestion(
        question_id=entry["question_id"],
        image_id=entry["image_id"],
        picture="",
        question=_text(entry["question"]),
        answers=tuple(_text(one["answer"]) for one in annotation.get("answers", ())),
        question_type=annotation.get("question_type") or "",
        answer_type=annotation.get("answer_type") or "",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _unique(path: str | Path, found: Iterable[VisualQuestion]) -> list[VisualQuestion]:
    kept: dict[int | str, VisualQuestion] = {}
    for question in found:
        if question.question_id in kept:
            raise ShardError(f"{path}: question id {question.question_id} comes twice; remove one of the two entries")
        kept[question.question_id] = question
    return list(kept.values())
