"""A conversation about one image in a terminal, or with lines from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from blip2_train.errors import Blip2TrainError
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.system.screen import echo

LEAVE = ("exit", "quit")
Answerer = Callable[[list[tuple[str, str]], str], str | Iterator[str]]
"""Makes the answer from the rounds so far and a message, as a whole or part by part."""


def converse(answer_of: Answerer) -> None:
    """Read messages until an empty line, `exit` or the end; print an answer to each.

    An error in one message is printed on standard error, and the conversation goes on.
    """
    rounds: list[tuple[str, str]] = []
    for message in _messages():
        try:
            answer = _printed(_fitting(answer_of, rounds, message))
        except Blip2TrainError as error:
            if not sys.stdin.isatty():
                raise
            echo(f"error: {error}", file=sys.stderr)
            continue
        rounds.append((message, answer))


def _printed(answer: str | Iterator[str]) -> str:
    """The answer, once it is on the terminal: each part as soon as it is there."""
    whole = ""
    for part in [answer] if isinstance(answer, str) else answer:
        echo(part, end="", flush=True)
        whole += part
    echo(flush=True)
    return whole


def _fitting(answer_of: Answerer, rounds: list[tuple[str, str]], message: str) -> str | Iterator[str]:
    """The answer; rounds are dropped, oldest first, until the conversation is short enough for the model."""
    while True:
        try:
            return answer_of(rounds, message)
        except PromptTooLong:
            if not rounds:
                raise
            dropped = rounds.pop(0)[0]
            echo(f"(too long for the model: {dropped!r} is dropped)", file=sys.stderr)


def _messages() -> Iterator[str]:
    typed = sys.stdin.isatty()
    if typed:
        echo("ask about the image; an empty line or 'exit' ends it", file=sys.stderr)
        _enable_line_editing()
    while True:
        try:
            line = input("> " if typed else "")
        except EOFError:
            return
        if not line.strip() or line.strip().lower() in LEAVE:
            return
        yield line.strip()


def _enable_line_editing() -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  (arrow keys in input())
