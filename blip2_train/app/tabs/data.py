"""The tab that shows what a data set holds."""

from __future__ import annotations

from typing import Any

from blip2_train.app.browsing import WORLD, data_code, look_at, open_set
from blip2_train.app.context import Context
from blip2_train.app.markup import data_report, figures
from blip2_train.app.tabs.parts import answer_with, code_field, gr, model_field, note_field
from blip2_train.data.sources.source import CaptionSource


def data_tab(context: Context) -> None:
    """Build the tab."""
    opened: dict[tuple[str, str], CaptionSource] = {}

    def page(
        name: str, images: str, first: float, count: float, looked_at: float, model: str | None
    ) -> tuple[Any, Any, str]:
        chosen = context.access.check("data set", name or "")
        if images.strip():
            context.access.check("folder", images)
        key = (chosen, images.strip())
        if key not in opened:
            opened.clear()
            opened[key] = open_set(*key, context.temporary)
        tokenizer = context.models.open(model).processor.own_tokenizer if model else None
        shown = look_at(opened[key], int(first or 0), int(count), int(looked_at), tokenizer)
        gallery = figures([(sample.image, (f"sample {sample.index}", *sample.captions)) for sample in shown.samples])
        loading = context.loading(model) if model else ""
        return gallery, data_report(shown), data_code(*key, int(first or 0), int(count), int(looked_at), loading)

    with gr.Row():
        with gr.Column(scale=1):
            name = gr.Dropdown(
                [*context.sets, WORLD],
                value=context.sets[0] if context.sets else WORLD,
                allow_custom_value=context.access.everything,
                label="data set: shards, or an annotation file",
            )
            images = gr.Textbox(label="folder of the images, if not that of the file")
            first = gr.Number(0, precision=0, minimum=0, label="first sample")
            count = gr.Slider(1, 48, 12, step=1, label="samples to show")
            looked_at = gr.Slider(0, 1000, 200, step=50, label="samples counted")
            with gr.Accordion("unknown tokens", open=False):
                model = model_field(context, label="tokenizer of the model")
            button = gr.Button("look", variant="primary")
            with gr.Row():
                back, on = gr.Button("◀ back", min_width=80), gr.Button("on ▶", min_width=80)
            note = note_field()
        with gr.Column(scale=2):
            report, gallery = gr.HTML(), gr.HTML()
            code = code_field()
    fields = [name, images, first, count, looked_at, model]
    answer_with([button.click], page, fields, note, [gallery, report, code])
    for button, way in ((back, -1), (on, 1)):
        turned = button.click(
            lambda start, step, way=way: max(0, int(start or 0) + way * int(step)),
            [first, count],
            first,
            api_visibility="private",
            show_progress="hidden",
        )
        answer_with([turned.then], page, fields, note, [gallery, report, code])
