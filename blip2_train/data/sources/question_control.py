"""Negative controls of visual question answering, in which only guessing is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from blip2_train.data.annotations.visual_questions import VisualQuestion

Control = Literal["none", "shuffled_pictures", "blank_questions"]
CONTROLS: tuple[str, ...] = get_args(Control)
BLANK = "?"


def controlled(questions: Sequence[VisualQuestion], control: str) -> list[VisualQuestion]:
    """The questions in their order, each about an image of another question far away in the list, or with no words."""
    if control == "shuffled_pictures":
        return [_elsewhere(questions, number) for number in range(len(questions))]
    if control == "blank_questions":
        return [replace(question, question=BLANK) for question in questions]
    return list(questions)


def _elsewhere(questions: Sequence[VisualQuestion], number: int) -> VisualQuestion:
    asked, count = questions[number], len(questions)
    others = (questions[(number + count // 2 + step) % count] for step in range(count))
    shown = next((other for other in others if other.image_id != asked.image_id), asked)
    return replace(asked, image_id=shown.image_id, image=shown.image)
