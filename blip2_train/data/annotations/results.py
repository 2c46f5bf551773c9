"""Predictions in the layouts of the evaluation servers of COCO, NoCaps, VQA and GQA."""

from __future__ import annotations

from pathlib import Path

from blip2_train.data.annotations.content import as_integer, is_table, read_content
from blip2_train.data.annotations.entry import Entry, short_repr
from blip2_train.data.text_cleaning import without_broken_marks
from blip2_train.errors import ShardError

CAPTIONS = ("image_id", "caption")
ANSWERS = ("question_id", "answer")
GQA_ANSWERS = ("questionId", "prediction")
_ANNOTATIONS = {"annotations", "questions", "images"}


def read_results(path: str | Path, names: tuple[str, str]) -> dict[int | str, str]:
    """Predictions by id, in the order of the file.

    Args:
        path: `[{"image_id": 42, "caption": "a dog"}]` or the like, as a JSON list, JSON lines or a table. A number is
            an answer; surrogates, which are not Unicode, are removed.
        names: names of id and text: `CAPTIONS`, `ANSWERS` or `GQA_ANSWERS`.

    Raises:
        ShardError: if the file cannot be read, has another format, holds annotations, or an id comes twice.
    """
    identity, text = names
    form = f'[{{"{identity}": …, "{text}": …}}]'
    file = Path(path).expanduser()
    content = read_content(file, form)
    if isinstance(content, dict):
        if not _ANNOTATIONS.isdisjoint(content):
            raise ShardError(
                f"{path} is an annotation or question file, not predictions of the form {form}; are predictions and "
                "annotations exchanged?"
            )
        raise ShardError(f"{path} is not a list of predictions of the form {form}")
    results: dict[int | str, str] = {}
    for _, row_number, values in content:
        entry = Entry(path, f"{content.unit} {row_number}", values, True, form)
        key = entry.identity(identity)
        key = as_integer(key) if is_table(file) else key
        if key in results:
            raise ShardError(f"{path}: {identity} {short_repr(key)} comes twice; keep one prediction for each")
        results[key] = without_broken_marks(entry.text(text) if names == CAPTIONS else entry.text_or_number(text))
    return results
