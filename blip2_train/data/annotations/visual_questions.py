"""The record of a question about an image, common to all layouts of question files."""

from __future__ import annotations

from dataclasses import dataclass

from blip2_train.errors import ShardError


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualQuestion:
    """A question about an image, with the answers of the annotators."""

    question_id: int | str
    """As in the file (an integer; in GQA a text that may begin with 0); unique in the file."""
    image_id: int | str
    """As in the file; without one, the image's file name."""
    image: str
    """Path of the image below its folder; empty if the file has no path."""
    question: str
    """As written."""
    answers: tuple[str, ...]
    """One per annotator, as written; empty if the answers are not published."""
    question_type: str
    """First words of the question (VQAv2), structural type (GQA), or empty."""
    answer_type: str
    """`yes/no`, `number` or `other` (VQAv2), semantic type (GQA), or empty."""


def named_image(form: str, image_id: int | str) -> str:
    """The path of an image named after its identity, for instance `COCO_val2014_{image_id:012d}.jpg`.

    Raises:
        ShardError: if the form needs a number, and the identity is none.
    """
    for read in (lambda: image_id, lambda: int(image_id)):
        try:
            return form.format(image_id=read())
        except ValueError:
            continue
    raise ShardError(
        f"picture_name {form!r} needs a number, but the questions are about image {image_id!r}; write {{image_id}}"
    )
