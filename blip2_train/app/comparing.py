"""What two models make of one image, side by side."""

from __future__ import annotations

from typing import NamedTuple

from blip2_train.app.captioning import TextSettings, caption_call, needed_image
from blip2_train.app.matching import match_call
from blip2_train.app.python_code import Call
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.prompts import caption_prompt

_NAMES = ("one", "other")
"""What a program calls the two models."""


class Row(NamedTuple):
    """One task, by both models."""

    task: str
    first: str
    second: str


def calls(image: str | None, question: str, texts: list[str]) -> list[tuple[str, Call]]:
    """What each model is asked for: a caption, an answer if there is a question, scores of texts if there are any.

    Raises:
        ConfigError: if there is no image.
    """
    tasks = [("caption", caption_call(image, TextSettings()))]
    if question.strip():
        arguments = {"questions": question.strip()}
        tasks.append((question.strip(), Call(method="answer", image=needed_image(image), arguments=arguments)))
    return tasks + ([("match", match_call(image, texts))] if texts else [])


def compare(first: Blip2, second: Blip2, tasks: list[tuple[str, Call]]) -> list[Row]:
    """The outputs of two models; where a model cannot do something, the reason stands there.

    Args:
        first: A model.
        second: Another.
        tasks: As `calls` gives it.
    """
    rows = []
    for task, call in tasks:
        sides = [_lines(model, call) for model in (first, second)]
        if call.method != "match":
            rows.append(Row(task, *(side[0] for side in sides)))
            continue
        texts = call.arguments["texts"]
        for index, text in enumerate(texts):
            rows.append(Row(text, *(side[index] if len(side) == len(texts) else side[0] for side in sides)))
    return rows


def comparing_code(models: list[tuple[Blip2, str]], tasks: list[tuple[str, Call]]) -> str:
    """A program that loads both models, and prints all that each of them can do.

    Args:
        models: Both, each with the call that loads it.
        tasks: As `calls` gives it.
    """
    loaded = [f"{name}, _ = {loading}" for name, (_, loading) in zip(_NAMES, models, strict=True)]
    able = [
        call.line(name) if not (reason := _why_not(model, call)) else f"# {name} does no {call.method}: {reason}"
        for _, call in tasks
        for name, (model, _) in zip(_NAMES, models, strict=True)
    ]
    return "\n".join(["import blip2_train as b2", "", *loaded, *able])


def _why_not(model: Blip2, call: Call) -> str:
    """Why a model cannot do what it is called for; empty if it can."""
    if call.method == "caption":
        try:
            model.check_describes()
            caption_prompt(model.processor.prompt)  # a model of questions has none
        except ConfigError as error:
            return str(error)
        return ""
    able = model.network.matches_texts if call.method == "match" else model.network.language_config is not None
    return "" if able else f"this is {model.network.title}"


def _lines(model: Blip2, call: Call) -> list[str]:
    """A line for each output of a call, or why there is none."""
    if reason := _why_not(model, call):
        return [f"– ({reason})"]
    made = call.run(model)
    if call.method == "match":
        pairs = zip(made.itc[0].tolist(), made.itm[0].tolist(), strict=True)
        return [f"ITM {100 * itm:.1f} % · ITC {itc:.3f}" for itc, itm in pairs]
    return list(made)


def check_two(first: str | None, second: str | None) -> None:
    """Refuse to compare a model with itself.

    Raises:
        ConfigError: if both names are the same.
    """
    if first == second:
        raise ConfigError(f"both models are {first or 'not chosen'}; choose two different ones")
