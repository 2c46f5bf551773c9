"""Questions in entries of their own: VQAv2's, the released code's lists, LLaVA's lines, tables, Visual Genome 1.0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blip2_train.data.annotations.columns import ANSWERS, IMAGES, QUESTIONS, Columns, find_column
from blip2_train.data.annotations.content import is_table, number_of
from blip2_train.data.annotations.entry import Entry
from blip2_train.data.annotations.rows import Rows
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.errors import ShardError

QUESTION = '{"question_id": …, "image": … or "image_id": …, "question": …, "answer": …}'
_IDS, _IMAGE_IDS = ("question_id", "questionId"), ("image_id", "imageId")


def question_entries(file: Path, rows: Rows, columns: Columns, *, strict: bool) -> Iterator[VisualQuestion]:
    """The questions in the order of the file, each with the answers that stand beside it.

    Args:
        file: for messages.
        rows: the entries.
        columns: chosen ones.
        strict: see `Entry`.

    Raises:
        ShardError: naming the file, the entry and the field.
    """
    there = next(([*values] for _, _, values in rows), [])
    if not there:
        raise ShardError(f"{file} has no rows; expected one for each question, {QUESTION}")
    asked = find_column(file, there, columns.question, QUESTIONS, "question_column")
    image = find_column(file, there, columns.image, (*IMAGES, *_IMAGE_IDS), "picture_column")
    for option, chosen in (("answer_column", columns.answer), ("id_column", columns.id)):
        if chosen is not None:
            find_column(file, there, chosen, (), option)
    for place, (_, number, values) in enumerate(rows):
        entry = Entry(file, f"{rows.unit} {number}", values, strict, QUESTION)
        shown = image if columns.image or image in values else entry.first_of((*IMAGES, *_IMAGE_IDS)) or image
        image_id = entry.identity(entry.first_of(_IMAGE_IDS) or shown)
        # Visual Genome 1.0 and the official files give the image's number, not its name.
        named = shown not in _IMAGE_IDS and isinstance(values.get(shown), str)
        flat = shown == "image" and not named and "id" in values
        own = columns.id or entry.first_of(_IDS) or ("id" if flat else None)
        identity = place if own is None else entry.identity(own)
        yield VisualQuestion(
            question_id=number_of(identity) if is_table(file) else identity,
            image_id=number_of(image_id) if is_table(file) else image_id,
            image=entry.name(shown).strip() if named else "",
            question=entry.text(asked),
            answers=answers_of(entry, columns),
            question_type=entry.kind("question_type"),
            answer_type=entry.kind("answer_type"),
        )


def answers_of(entry: Entry, columns: Columns) -> tuple[str, ...]:
    """The answers in an entry, under whatever name they stand there: texts, numbers, or `{"answer": …}` objects.

    Raises:
        ShardError: naming the file, the entry and the field.
    """
    field = columns.answer or entry.first_of(ANSWERS)
    if field is None:
        return ()
    value = entry.value(field)
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        plain = [text for one in value if isinstance(one, dict) and isinstance(text := one.get("answer"), str)]
        if len(plain) == len(value) and all(text[:1] not in ("", "[", " ") for text in plain):
            return tuple(plain)  # as in all of the official files, whose answers are many
        found = tuple(text for one in entry.entries(field) for text in one.texts("answer", numbers=True))
    else:
        found = entry.texts(field, numbers=True)
    return found if entry.strict else tuple(text for text in found if text.strip())
