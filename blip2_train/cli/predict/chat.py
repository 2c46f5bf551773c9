"""A conversation about one image in a terminal, or with lines from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from blip2_train.errors import Blip2TrainError
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.system.screen import echo

LEAVE = ("exit", "quit")
Say = Callable[[list[tuple[str, str]], str], str]
"""From the turns so far and a message to the answer."""


def converse(say: Say) -> None:
    """Read messages until an empty line, `exit` or the end; print an answer to each.

    What has gone wrong with one message is said on standard error, and the conversation goes on.
    """
    turns: list[tuple[str, str]] = []
    for message in _messages():
        try:
            answer = _fitting(say, turns, message)
        except Blip2TrainError as error:
            if not sys.stdin.isatty():
                raise
            echo(f"error: {error}", file=sys.stderr)
            continue
        turns.append((message, answer))
        echo(answer, flush=True)


def _fitting(say: Say, turns: list[tuple[str, str]], message: str) -> str:
    """The answer; turns are forgotten, oldest first, until the conversation is short enough for the model."""
    while True:
        try:
            return say(turns, message)
        except PromptTooLong:
            if not turns:
                raise
            forgotten = turns.pop(0)[0]
            echo(f"(too long for the model: {forgotten!r} is forgotten)", file=sys.stderr)


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
