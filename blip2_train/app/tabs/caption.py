"""The tab that describes an image."""

from __future__ import annotations

from typing import Any

from blip2_train.app.captioning import caption_call
from blip2_train.app.context import Context
from blip2_train.app.markup import generated
from blip2_train.app.tabs.parts import (
    answer_with,
    code_field,
    example_images,
    gr,
    image_field,
    model_field,
    note_field,
    settings_fields,
    settings_of,
)


def caption_tab(context: Context) -> None:
    """Build the tab."""

    def captions(model: str, image: str | None, prompt: str, count: float, *settings: Any) -> tuple[Any, str]:
        call = caption_call(image, settings_of(*settings), prompt=prompt, count=int(count))
        made = call.run(context.models.open(model))
        return generated(made), context.code(call, model)

    with gr.Row():
        with gr.Column():
            image = image_field()
            example_images(context, [image], [[str(example.image)] for example in context.examples])
        with gr.Column():
            model = model_field(context)
            prompt = gr.Textbox(label="prompt (empty = as the model was trained)", placeholder="a photo of")
            count = gr.Slider(1, 10, 1, step=1, label="captions (several are sampled)")
            settings = settings_fields()
            button = gr.Button("describe", variant="primary")
            note, captioned = note_field(), gr.HTML()
            code = code_field()
    fields = [model, image, prompt, count, *settings]
    answer_with([button.click, prompt.submit], captions, fields, note, [captioned, code])
