"""The tab that searches a folder of images, or texts for an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_train.app.captioning import needed_image
from blip2_train.app.context import Context
from blip2_train.app.examples import EXAMPLES
from blip2_train.app.markup import bars, figures, noted
from blip2_train.app.matching import lines_of, match_call, text_scores
from blip2_train.app.searching import (
    FolderIndices,
    SearchedFolder,
    by_image_code,
    by_text_code,
    images_of_text,
    lines_of_hit,
    search_code,
)
from blip2_train.app.tabs.parts import (
    PROGRESS,
    answer_with,
    code_field,
    example_images,
    gr,
    image_field,
    model_field,
    note_field,
)
from blip2_train.data.batches.image_inputs import open_image
from blip2_train.evaluation.report.markup import Markup
from blip2_train.evaluation.search.searcher import Hit

SIDE = 320
"""Pixels of the longer side of an image that is shown."""


def search_tab(context: Context) -> None:
    """Build the tab."""

    def location_of(folder: str | None) -> Path:
        name = context.access.check("folder", folder or "")
        return context.temporary / "examples" if name == EXAMPLES else Path(name).expanduser()

    def searched(model: str, folder: str | None, progress: Any) -> SearchedFolder:
        location, indices = location_of(folder), context.models.made_of(model, FolderIndices)
        return indices.read(location, lambda done, total: progress((done, total), desc="reading images"))

    def program(model: str, folder: str, search: str) -> str:
        return search_code(model, str(location_of(folder)), search, context.models.device, context.models.dtype)

    def by_text(
        model: str, folder: str, text: str, count: float, rerank: bool, progress: Any = PROGRESS
    ) -> tuple[Any, Any, str]:
        line = lines_of(text)[0]
        images = searched(model, folder, progress)
        hits = images_of_text(images, line, int(count), rerank)
        code = program(model, folder, by_text_code(line, int(count), rerank))
        return thumbnails(hits), noted(images.summary), code

    def by_image(
        model: str, folder: str, image: str | None, count: float, progress: Any = PROGRESS
    ) -> tuple[Any, Any, str]:
        given = needed_image(image)
        images = searched(model, folder, progress)
        hits = images.searcher.by_images(given, int(count))[0]
        return thumbnails(hits), noted(images.summary), program(model, folder, by_image_code(given, int(count)))

    def texts_of(model: str, image: str | None, texts: str) -> tuple[Any, str]:
        call = match_call(image, lines_of(texts))
        return bars(text_scores(context.models.open(model), call)), context.code(call, model)

    with gr.Row():
        model = model_field(context, matches_texts=True)
        folders = [*context.folders, EXAMPLES]
        custom = context.access.everything
        folder = gr.Dropdown(
            folders, value=folders[0], allow_custom_value=custom, label="folder of images", min_width=260
        )
        count = gr.Slider(1, 48, 8, step=1, label="images to show")
    with gr.Tabs():
        with gr.Tab("by text"):
            text = gr.Textbox(label="text", placeholder="a red bus")
            rerank = gr.Checkbox(True, label="the probability of a match (ITM) decides among the most similar")
            find = gr.Button("search", variant="primary")
            note, gallery, about = note_field(), gr.HTML(), gr.HTML()
            code = code_field()
        with gr.Tab("by image"), gr.Row():
            with gr.Column(scale=1):
                image = image_field()
                example_images(context, [image], [[str(example.image)] for example in context.examples])
                alike = gr.Button("search", variant="primary")
            with gr.Column(scale=2):
                note_2, gallery_2, about_2 = note_field(), gr.HTML(), gr.HTML()
                code_2 = code_field()
        with gr.Tab("texts by image"), gr.Row():
            with gr.Column():
                image_3 = image_field()
                texts = gr.Textbox(label="texts, one in each line", lines=6, render=False)
                rows = [[str(example.image), example.texts] for example in context.examples]
                example_images(context, [image_3, texts], rows)
            with gr.Column():
                texts.render()
                rank = gr.Button("rank", variant="primary")
                note_3, ranked = note_field(), gr.HTML()
                code_3 = code_field()
    answer_with([find.click, text.submit], by_text, [model, folder, text, count, rerank], note, [gallery, about, code])
    answer_with([alike.click], by_image, [model, folder, image, count], note_2, [gallery_2, about_2, code_2])
    answer_with([rank.click], texts_of, [model, image_3, texts], note_3, [ranked, code_3])


def thumbnails(hits: list[Hit]) -> Markup:
    """What was found, with its scores."""
    shown = []
    for hit in hits:
        image = open_image(Path(hit.name))
        image.thumbnail((SIDE, SIDE))
        shown.append((image, lines_of_hit(hit)))
    return figures(shown)
