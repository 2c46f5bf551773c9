"""Answers to questions about an image: each for itself, or in a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from blip2_train.app.captioning import TextSettings, needed_image
from blip2_train.app.python_code import Call
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.evaluation.inference import Blip2

Rounds = Sequence[tuple[str, str]]
"""Questions and answers, oldest first."""


@dataclass
class Talk:
    """A conversation of the page, which a person may end while its last answer is generated."""

    rounds: list[tuple[str, str]] = field(default_factory=list)
    """Questions and answers, oldest first."""
    ended: bool = False
    """Whether another one has begun: nothing more comes of this one."""

    def anew(self) -> Talk:
        """End this one, and begin another."""
        self.ended = True
        return Talk()

    @property
    def shown(self) -> list[tuple[str, str]]:
        """What the page shows of it: nothing once it ended."""
        return [] if self.ended else self.rounds

    def answered(self, question: str, replies: Iterator[Reply]) -> Iterator[Reply | None]:
        """The replies to a question, each in `rounds` when it comes; None, and no more, once the conversation ended."""
        before = self.rounds
        for reply in replies:
            if self.ended:
                break
            self.rounds = [*before, (question.strip(), reply.answer)]
            yield reply
        if self.ended:
            yield None


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


def next_answer(
    model: Blip2, image: str | None, rounds: Rounds, message: str, settings: TextSettings, stream: bool = False
) -> Iterator[Reply]:
    """The next answer of a conversation; rounds that the model has no room for are dropped, oldest first.

    Args:
        model: A generative model.
        image: The image.
        rounds: Questions and answers before.
        message: The question.
        settings: How text is generated.
        stream: Give the answer so far, again and again, while it is generated: without beams.

    Raises:
        Blip2TrainError: as `Blip2.chat`.
    """
    file, kept = needed_image(image), list(rounds)
    greedy = {"num_beams": 1} if stream and not settings.sampled else {}
    while True:
        given = {"turns": kept, "message": message} | greedy | settings.arguments()
        call = Call(method="chat", image=file, arguments=given)
        try:
            made = model.chat(file, **given, stream=True) if stream else call.run(model)
        except PromptTooLong:
            if not kept:
                raise
            kept = kept[1:]
            continue
        break
    answer = ""
    for part in [made] if isinstance(made, str) else made:
        answer += part
        yield Reply(answer, call, len(rounds) - len(kept))
    if not answer:
        yield Reply(answer, call, len(rounds) - len(kept))
