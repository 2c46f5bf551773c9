"""The tab that scores texts for an image, and shows where the model looks."""

from __future__ import annotations

from typing import Any

from blip2_train.app.captioning import needed_image
from blip2_train.app.context import Context
from blip2_train.app.markup import bars, figures
from blip2_train.app.matching import lines_of, match_call, query_views, text_scores, word_views
from blip2_train.app.tabs.parts import (
    answer_with,
    code_field,
    example_images,
    gr,
    image_field,
    model_field,
    note_field,
)

WORDS, QUERIES = "words", "queries"


def match_tab(context: Context) -> None:
    """Build the tab."""

    def scores(model: str, image: str | None, texts: str) -> tuple[Any, str, str]:
        lines = lines_of(texts)
        call = match_call(image, lines)
        scored = text_scores(context.models.open(model), call)
        return bars(scored), context.code(call, model), scored[0].text

    def maps(model: str, image: str | None, text: str | None, what: str) -> Any:
        views = word_views if what == WORDS else query_views
        shown = views(context.models.open(model), needed_image(image), lines_of(text or "")[0])
        return figures([(view.image, [view.label]) for view in shown])

    with gr.Row():
        with gr.Column():
            image = image_field()
            texts = gr.Textbox(label="texts, one in each line", lines=4, render=False)
            rows = [[str(example.image), example.texts] for example in context.examples]
            example_images(context, [image, texts], rows)
        with gr.Column():
            model = model_field(context, matches_texts=True)
            texts.render()
            button = gr.Button("match", variant="primary")
            note, scored = note_field(), gr.HTML()
            code = code_field()
    with gr.Row(equal_height=False):
        with gr.Column(scale=1):
            text = gr.Textbox(label="where does the model look for", lines=2)
            what = gr.Radio([WORDS, QUERIES], value=WORDS, label="maps of")
            look = gr.Button("look")
            looked = note_field()
        with gr.Column(scale=3):
            gallery = gr.HTML()
    answer_with([button.click], scores, [model, image, texts], note, [scored, code, text])
    answer_with([look.click], maps, [model, image, text, what], looked, [gallery])
