"""The tab that puts two models side by side."""

from __future__ import annotations

from typing import Any

from blip2_train.app.comparing import calls, check_two, compare, comparing_code
from blip2_train.app.context import Context
from blip2_train.app.markup import table
from blip2_train.app.matching import lines_of
from blip2_train.app.tabs.parts import (
    answer_with,
    code_field,
    example_images,
    gr,
    image_field,
    model_field,
    note_field,
)


def compare_tab(context: Context) -> None:
    """Build the tab."""

    def outputs(first: str, second: str, image: str | None, question: str, texts: str) -> tuple[Any, str]:
        check_two(first, second)
        tasks = calls(image, question, lines_of(texts) if texts.strip() else [])
        one, other = context.models.open(first), context.models.open(second)
        rows = compare(one, other, tasks)
        code = comparing_code([(one, context.loading(first)), (other, context.loading(second))], tasks)
        labels = {source: label for label, source in context.models.choices()}
        return table(("", *(labels.get(name, name) for name in (first, second))), rows), code

    with gr.Row():
        with gr.Column():
            image = image_field()
            question = gr.Textbox(label="question, if any", render=False)
            texts = gr.Textbox(label="texts to match, if any, one in each line", lines=3, render=False)
            rows = [[str(example.image), example.question, example.texts] for example in context.examples]
            example_images(context, [image, question, texts], rows)
        with gr.Column():
            first, second = model_field(context, label="one model"), model_field(context, label="the other", at=1)
            question.render()
            texts.render()
            button = gr.Button("compare", variant="primary")
    note, made = note_field(), gr.HTML()
    code = code_field()
    answer_with([button.click], outputs, [first, second, image, question, texts], note, [made, code])
