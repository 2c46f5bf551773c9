"""Questions about images from annotation files of every known layout, detected by name and content.

The same reader serves training and evaluation; see `captions` for the meaning of strict and lenient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from blip2_train.data.annotations.columns import ANSWERS, IMAGES, QUESTIONS, Columns, find_column
from blip2_train.data.annotations.content import as_integer, is_table, read_content
from blip2_train.data.annotations.entry import Entry, short_repr
from blip2_train.data.annotations.rows import ListRows, Rows
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.errors import ShardError

QUESTION = '{"question_id": …, "image": … or "image_id": …, "question": …, "answer": …}'
_IDS, _IMAGE_IDS = ("question_id", "questionId"), ("image_id", "imageId")


def question_entries(file: Path, rows: Rows, columns: Columns, *, strict: bool) -> Iterator[VisualQuestion]:
    """The questions in the order of the file, each with the answers in its entry.

    Args:
        file: for messages.
        rows: the entries.
        columns: chosen columns.
        strict: see `Entry`.

    Raises:
        ShardError: with the file, the entry and the field.
    """
    there = next(([*values] for _, _, values in rows), [])
    if not there:
        raise ShardError(f"{file} has no rows; expected one for each question, {QUESTION}")
    question_column = find_column(file, there, columns.question, QUESTIONS, "question_column")
    image = find_column(file, there, columns.image, (*IMAGES, *_IMAGE_IDS), "picture_column")
    for option, chosen in (("answer_column", columns.answer), ("id_column", columns.id)):
        if chosen is not None:
            find_column(file, there, chosen, (), option)
    for index, (_, row_number, values) in enumerate(rows):
        entry = Entry(file, f"{rows.unit} {row_number}", values, strict, QUESTION)
        short_repr = image if columns.image or image in values else entry.first_of((*IMAGES, *_IMAGE_IDS)) or image
        image_id = entry.identity(entry.first_of(_IMAGE_IDS) or short_repr)
        # Visual Genome 1.0 and the official files have the image's id, not its file name.
        named = short_repr not in _IMAGE_IDS and isinstance(values.get(short_repr), str)
        flat = short_repr == "image" and not named and "id" in values
        own = columns.id or entry.first_of(_IDS) or ("id" if flat else None)
        identity = index if own is None else entry.identity(own)
        yield VisualQuestion(
            question_id=as_integer(identity) if is_table(file) else identity,
            image_id=as_integer(image_id) if is_table(file) else image_id,
            image=entry.name(short_repr).strip() if named else "",
            question=entry.text(question_column),
            answers=answers_of(entry, columns),
            question_type=entry.kind("question_type"),
            answer_type=entry.kind("answer_type"),
        )


def answers_of(entry: Entry, columns: Columns) -> tuple[str, ...]:
    """The answers in an entry, in any of the usual fields: texts, numbers, or `{"answer": …}` objects.

    Raises:
        ShardError: with the file, the entry and the field.
    """
    field = columns.answer or entry.first_of(ANSWERS)
    if field is None:
        return ()
    value = entry.value(field)
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        plain = [text for one in value if isinstance(one, dict) and isinstance(text := one.get("answer"), str)]
        if len(plain) == len(value) and all(text[:1] not in ("", "[", " ") for text in plain):
            return tuple(plain)  # the fast path, for the many answers of the official files
        answers = tuple(text for one in entry.entries(field) for text in one.texts("answer", numbers=True))
    else:
        answers = entry.texts(field, numbers=True)
    return answers if entry.strict else tuple(text for text in answers if text.strip())


QuestionForm = Literal["vqa", "visual_genome", "gqa", "list"]
VQA_FORM = '{"questions": [{"question_id": …, "image_id": …, "question": …}]}'
ANNOTATION_FORM = '{"annotations": [{"question_id": …, "image_id": …, "answers": [{"answer": …}]}]}'
LIST_FORM = '[{"image": …, "question": …, "answer": …}]'
GENOME_FORM = '[{"id": …, "qas": [{"qa_id": …, "question": …, "answer": …}]}]'
GQA_FORM = '{"<question id>": {"imageId": …, "question": …, "answer": …}}'
_FORMS = {"vqa": VQA_FORM, "visual_genome": GENOME_FORM, "gqa": GQA_FORM, "list": LIST_FORM}


def read_questions(
    questions: str | Path,
    annotations: str | Path | None = None,
    *,
    columns: Columns | None = None,
    form: QuestionForm | None = None,
    strict: bool = False,
) -> list[VisualQuestion]:
    """The questions of a file in its order, with their answers.

    Args:
        questions: official file of VQAv2, OK-VQA, Visual Genome or GQA; or a list of entries, JSON lines, or a table.
        annotations: the answers of the same questions, in VQAv2's layout or as a bare list; None if they are
            in the question file, or not published.
        columns: columns of lists and tables, where their names are not the usual ones.
        form: the layout that the questions must have; a list is accepted for each. None = any.
        strict: refuse what training skips: questions without annotations, annotations without questions, nulls.

    Raises:
        ShardError: with the file, the entry and the field, if a file cannot be read, has another form, the two belong
            to different splits, or an id comes twice.
    """
    path, columns = Path(questions).expanduser(), columns or Columns()
    expected = _FORMS[form or "vqa"]
    content = read_content(path, expected)
    layout = _form(content)
    if layout is None or (form is not None and layout not in (form, "list")):
        raise ShardError(f"{questions} is not of the form {expected}; take the official file")
    records = _unique(path, _LAYOUTS[layout](path, content, columns, strict))
    if not records:
        raise ShardError(f"annotation file {questions} holds nothing; expected {expected}")
    if annotations is None:
        return records
    if any(one.answers for one in records):
        raise ShardError(f"{questions} holds its own answers; leave out the annotation file {annotations}")
    return _joined(path, content, records, Path(annotations).expanduser(), columns, strict)


def _form(content: Rows | dict[str, Any]) -> QuestionForm | None:
    if isinstance(content, dict):
        if _listed(content, "questions") is not None:
            return "vqa"
        first = next(iter(content.values()), None)
        return "gqa" if isinstance(first, dict) and "question" in first else None
    return "visual_genome" if "qas" in next((values for _, _, values in content), {}) else "list"


def _listed(content: Mapping[str, Any], key: str) -> list[Any] | None:
    """The list of an object under `key` or TextVQA's `data`; None if it is missing or empty."""
    entries = content.get(key, content.get("data"))
    return entries if isinstance(entries, list) and entries else None


def _vqa(file: Path, content: Any, columns: Columns, strict: bool) -> Iterator[VisualQuestion]:
    rows = ListRows(file, _listed(content, "questions") or [], "entry")
    return question_entries(file, rows, columns, strict=strict)


def _rows(file: Path, content: Any, columns: Columns, strict: bool) -> Iterator[VisualQuestion]:
    return question_entries(file, content, columns, strict=strict)


def _visual_genome(file: Path, content: Any, columns: Columns, strict: bool) -> Iterator[VisualQuestion]:
    for _, row_number, values in content:
        image = Entry(file, f"{content.unit} {row_number}", values, strict, GENOME_FORM)
        own = image.first_of(("id", "image_id"))
        for entry in image.entries("qas"):
            yield VisualQuestion(
                question_id=entry.identity("qa_id"),
                image_id=entry.identity("image_id") if own is None else image.identity(own),
                image="",
                question=entry.text("question"),
                answers=answers_of(entry, Columns(answer="answer")),
                question_type="",
                answer_type="",
            )


def _gqa(file: Path, content: Any, columns: Columns, strict: bool) -> Iterator[VisualQuestion]:
    for identity, values in content.items():
        if not isinstance(values, dict):
            raise ShardError(
                f"{file}, entry {short_repr(identity)}: {short_repr(values)} is no object; expected {GQA_FORM}"
            )
        entry = Entry(file, f"entry {short_repr(identity)}", values, strict, GQA_FORM)
        image = entry.identity("imageId")
        types = values.get("types")
        kinds = replace(entry, values=types if isinstance(types, dict) else {})
        yield VisualQuestion(
            question_id=identity,
            image_id=image,
            image=f"{image}.jpg",
            question=entry.text("question"),
            answers=answers_of(entry, columns),
            question_type=kinds.kind("structural"),
            answer_type=kinds.kind("semantic"),
        )


_LAYOUTS = {"vqa": _vqa, "visual_genome": _visual_genome, "gqa": _gqa, "list": _rows}


def _joined(
    questions: Path,
    question_content: Any,
    records: list[VisualQuestion],
    annotations: Path,
    columns: Columns,
    strict: bool,
) -> list[VisualQuestion]:
    """The questions with the answers of an annotation file."""
    content = read_content(annotations, ANNOTATION_FORM)
    if isinstance(content, dict):
        splits = (
            question_content.get("data_subtype") if isinstance(question_content, dict) else None,
            content.get("data_subtype"),
        )
        if None not in splits and splits[0] != splits[1]:
            raise ShardError(
                f"{questions} is of {short_repr(splits[0])}, but {annotations} of {short_repr(splits[1])}; take the "
                "two files of one split"
            )
        if (listed := _listed(content, "annotations")) is None:
            raise ShardError(f"{annotations} is not of the form {ANNOTATION_FORM}; take the official file")
        content = ListRows(annotations, listed, "entry")
    unmatched = _annotations(annotations, content, columns, strict)
    joined = []
    for one in records:
        entry = unmatched.pop(one.question_id, None)
        if entry is None and strict:
            raise ShardError(
                f"{questions}: question {short_repr(one.question_id)} has no annotation in {annotations}; take the "
                "annotations of the same split and version"
            )
        joined.append(one if entry is None else _with_answers(one, entry, questions, annotations, columns))
    if unmatched and strict:
        raise ShardError(
            f"{annotations} has {len(unmatched)} annotations without a question in {questions} (first: "
            f"{short_repr(next(iter(unmatched)))}); take the two files of one split and version"
        )
    return joined


def _annotations(file: Path, rows: Rows, columns: Columns, strict: bool) -> dict[int | str, Entry]:
    entries: dict[int | str, Entry] = {}
    for _, row_number, values in rows:
        entry = Entry(file, f"{rows.unit} {row_number}", values, strict, ANNOTATION_FORM)
        identity = entry.identity(columns.id if columns.id is not None and columns.id in values else "question_id")
        if identity in entries:
            raise ShardError(f"{file}: two annotations of question {short_repr(identity)}; remove one")
        if strict and not answers_of(entry, columns):
            raise entry.fault("lacks 'answers'")
        entries[identity] = entry
    return entries


def _with_answers(
    question: VisualQuestion, entry: Entry, questions: Path, annotations: Path, columns: Columns
) -> VisualQuestion:
    about = entry.identity("image_id") if "image_id" in entry.values else question.image_id
    if not question.image and str(about) != str(question.image_id):
        raise ShardError(
            f"question {short_repr(question.question_id)} is about image {short_repr(question.image_id)} in "
            f"{questions}, but about {short_repr(about)} in {annotations}; take the two files of one split and version"
        )
    return replace(
        question,
        answers=answers_of(entry, columns),
        question_type=entry.kind("question_type"),
        answer_type=entry.kind("answer_type"),
    )


def _unique(file: Path, questions: Iterable[VisualQuestion]) -> list[VisualQuestion]:
    kept: dict[int | str, VisualQuestion] = {}
    for question in questions:
        if question.question_id in kept:
            raise ShardError(
                f"{file}: question id {short_repr(question.question_id)} comes twice; remove one of the two entries"
            )
        kept[question.question_id] = question
    return list(kept.values())
