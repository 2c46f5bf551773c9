"""Parts that several tabs have: an image with examples, a choice of models, settings of generation, the code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from blip2_train.app.captioning import TextSettings
from blip2_train.app.context import Context
from blip2_train.app.markup import noted, refused
from blip2_train.app.refusals import refusal
from blip2_train.system.extras import import_extra

gr: Any = import_extra("gradio", "the web app")
CALLS = "calls"
"""Name of the queue that all calls of models and data share: one at a time, whatever tab it comes from."""
PROGRESS = gr.Progress()
"""Default of an argument through which a function tells how far it is."""

NO_MODEL = {
    None: "This machine has no model yet. Train one (bash run_scripts/pretrain_stage1.sh), or type a Hugging Face id.",
    True: "This tab needs a stage-1 model. Train one (bash run_scripts/pretrain_stage1.sh), or type where one is.",
    False: "This tab needs a model with a language model. Train one (bash run_scripts/pretrain_stage2.sh), or type "
    "where one is.",
}
"""By whether the model has to match texts."""


def image_field(label: str = "image") -> Any:
    """A field for an image, whose value is its file."""
    field = gr.Image(type="filepath", image_mode=None, label=label, sources=["upload", "clipboard"], height=260)
    # Gradio would decode the file, and say of a broken one only that there was an error
    field.preprocess = lambda given: None if given is None else given.path
    return field


def example_images(context: Context, fields: Sequence[Any], rows: Sequence[Sequence[str]]) -> None:
    """Images of the emoji scenes to click on; a click fills the fields.

    Args:
        context: With the examples.
        fields: The field for the image, and others.
        rows: The values of all fields, for each example.
    """
    if not context.examples:
        return
    samples = [[str(example.image)] for example in context.examples]
    shown = gr.Dataset(
        components=[gr.Image(type="filepath", render=False)], samples=samples, type="index", label="examples"
    )

    def fill(index: int) -> Any:
        return rows[index][0] if len(fields) == 1 else tuple(rows[index])

    shown.click(fill, shown, list(fields), api_visibility="private", show_progress="hidden")


def model_field(
    context: Context,
    matches_texts: bool | None = None,
    label: str = "model",
    at: int = 0,
    of_questions: bool = False,
) -> Any:
    """A choice of models, of which the one at `at` is chosen; others can be typed if the page may open anything."""
    choices = context.models.choices(matches_texts, of_questions)
    if not choices:
        gr.HTML(noted(NO_MODEL[matches_texts]))
    return gr.Dropdown(
        choices,
        value=choices[min(at, len(choices) - 1)][1] if choices else None,
        allow_custom_value=context.access.everything,
        label=label,
        min_width=260,
    )


def settings_fields() -> list[Any]:
    """Fields for `TextSettings`, in the order that `settings_of` takes."""
    with gr.Accordion("settings", open=False):
        how = gr.Radio(["beam search", "sampling"], value="beam search", label="how")
        with gr.Row():
            beams = gr.Slider(0, 10, 0, step=1, label="beams (0 = the model's own)", min_width=140)
            top_p = gr.Slider(0.05, 1.0, 0.9, step=0.05, label="top-p of sampling", min_width=140)
            temperature = gr.Slider(0.1, 2.0, 1.0, step=0.1, label="temperature of sampling", min_width=140)
        with gr.Row():
            longest = gr.Slider(0, 100, 0, step=1, label="most new tokens (0 = own)", min_width=140)
            shortest = gr.Slider(0, 100, 0, step=1, label="fewest (0 = own)", min_width=140)
        with gr.Row():
            length = gr.Slider(-2.0, 2.0, 1.0, step=0.1, label="length penalty", min_width=140)
            repetition = gr.Slider(0.5, 3.0, 1.0, step=0.1, label="repetition penalty", min_width=140)
            seed = gr.Number(0, precision=0, label="seed", min_width=100)
    return [how, beams, top_p, temperature, longest, shortest, length, repetition, seed]


def settings_of(*values: Any) -> TextSettings:
    """The settings that fields of `settings_fields` hold."""
    how, beams, top_p, temperature, longest, shortest, length, repetition, seed = values
    return TextSettings(
        sampled=how == "sampling",
        num_beams=beams,
        top_p=top_p,
        temperature=temperature,
        max_new_tokens=longest,
        min_new_tokens=shortest,
        length_penalty=length,
        repetition_penalty=repetition,
        seed=seed or 0,
    )


def code_field() -> Any:
    """The program of the last call, to copy."""
    with gr.Accordion("as Python", open=False):
        return gr.Code(language="python", interactive=False, label="gives the same result", show_line_numbers=False)


def note_field() -> Any:
    """A line for what went wrong; hidden while nothing did."""
    return gr.HTML(visible=False)


def answer_with(
    triggers: Sequence[Callable[..., Any]],
    function: Callable[..., Any],
    inputs: Sequence[Any],
    note: Any,
    outputs: Sequence[Any],
) -> None:
    """Let events call a function, one at a time on the whole page; its errors become a line of the page.

    Args:
        triggers: Events: `button.click`.
        function: Takes the values of `inputs`, and returns or yields one for each output.
        inputs: Fields.
        note: Made by `note_field`.
        outputs: Fields.
    """
    answer = in_one_line_or(function, len(outputs))
    for trigger in triggers:
        trigger(
            answer,
            list(inputs),
            [note, *outputs],
            api_visibility="private",
            show_progress_on=list(outputs),
            concurrency_id=CALLS,
            concurrency_limit=1,
        )


def in_one_line_or(function: Callable[..., Any], count: int) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """A function that yields the values of another one behind a note, or only a note that says what went wrong."""

    @functools.wraps(function)
    def answer(*values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            made = function(*values)
            for one in made if inspect.isgenerator(made) else [made]:
                yield (gr.HTML(visible=False), *(one if count > 1 else (one,)))
        except Exception as error:
            yield (gr.HTML(refused(refusal(error)), visible=True), *[gr.skip()] * count)

    return answer
