"""Answers to questions about an image: each for itself, or in a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blip2_train.app.captioning import TextSettings, needed_image
from blip2_train.app.python_code import Call
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.evaluation.inference import Blip2

Rounds = Sequence[tuple[str, str]]
"""Questions and answers, oldest first."""


class Reply(NamedTuple):
    """An answer, and the call that gave it."""

    answer: str
    call: Call
    dropped: int = 0
    """Rounds that the model had no room for, oldest first."""


def short_answer(model: Blip2, image: str | None, question: str, settings: TextSettings) -> Reply:
    """A short answer to a question, without what came before.

    Raises:
        Blip2TrainError: as `Blip2.answer`.
    """
    given = {"questions": question} | settings.arguments()
    call = Call(method="answer", image=needed_image(image), arguments=given)
    return Reply(call.run(model)[0], call)


def next_answer(model: Blip2, image: str | None, rounds: Rounds, message: str, settings: TextSettings) -> Reply:
    """The next answer of a conversation; rounds that the model has no room for are dropped, oldest first.

    Raises:
        Blip2TrainError: as `Blip2.chat`.
    """
    kept = list(rounds)
    while True:
        given = {"turns": kept, "message": message} | settings.arguments()
        call = Call(method="chat", image=needed_image(image), arguments=given)
        try:
            return Reply(call.run(model), call, len(rounds) - len(kept))
        except PromptTooLong:
            if not kept:
                raise
            kept = kept[1:]
