"""Images with the captions generated for them, and a reference of each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from blip2_train.evaluation.figures.lettering import DPI, LINE, Lettering, Word, plain_words

RIGHT, WRONG = "#14724f", "#b3261e"
_CELL, _GAP, _SIZE, _SMALL = 3.0, 0.3, 10.0, 7.5
"""Inches of an image and between two; points of captions and of references."""


@dataclass(frozen=True, kw_only=True)
class ShownCaption:
    """A generated text beside what is right."""

    words: Sequence[tuple[str, bool | None]]
    """Each word, and whether it is right; None = nobody can tell."""
    reference: str
    """A text that is right."""
    missing: Sequence[str] = ()
    """What the words should have named and did not."""
    label: str = field(default="")
    """Above the text: a question."""


def caption_figure(title: str, images: Tensor, captions: Sequence[ShownCaption], columns: int = 4) -> bytes:
    """A PNG of images with their captions; right words green, wrong and missing ones red where that is known.

    Args:
        title: Above all.
        images: `(N, 3, H, W)`, 0 … 1.
        captions: N.
        columns: Images in a row, at most.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lettering = Lettering(
        [title, *(word for one in captions for word, _ in one.words), *(one.reference + one.label for one in captions)]
    )
    columns, width = min(columns, len(captions)), 72 * _CELL
    blocks = []
    for one in captions:
        generated = marked_words(one.words, one.missing)
        blocks.append(
            (
                lettering.lines([*plain_words(one.label, "grey"), *generated], width, _SIZE),
                lettering.lines(plain_words(one.reference, "grey"), width, _SMALL),
            )
        )
    rows = [range(start, min(start + columns, len(captions))) for start in range(0, len(captions), columns)]
    texts = [max(_height(*blocks[index]) for index in row) / 72 for row in rows]
    heights = [_CELL + text + _GAP for text in texts]
    figure_width, head = columns * (_CELL + _GAP) + _GAP, 0.5
    figure_height = head + sum(heights)
    figure = Figure(figsize=(figure_width, figure_height))
    FigureCanvasAgg(figure)
    figure.text(_GAP / figure_width, 1 - 0.18 / figure_height, lettering.shown(title), va="top", fontsize=11,
                family=lettering.families, parse_math=False)  # fmt: skip
    top = figure_height - head
    for row, height in zip(rows, heights, strict=True):
        for column, index in enumerate(row):
            left = _GAP + column * (_CELL + _GAP)
            axes = figure.add_axes(
                (left / figure_width, (top - _CELL) / figure_height, _CELL / figure_width, _CELL / figure_height)
            )
            axes.axis("off")
            axes.imshow(images[index].permute(1, 2, 0).numpy())
            generated_lines, reference_lines = blocks[index]
            lettering.draw(axes, generated_lines, _SIZE, 5)
            lettering.draw(axes, reference_lines, _SMALL, 7 + len(generated_lines) * LINE * _SIZE)
        top -= height
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png", facecolor="white")
    return file.getvalue()


def marked_words(words: Sequence[tuple[str, bool | None]], missing: Sequence[str]) -> list[Word]:
    """Words in the colour of what is known of them, or `(nothing)`; after them in brackets what is missing."""
    colours = {None: "black", True: RIGHT, False: WRONG}
    shown = [Word(text=word, colour=colours[right], bold=right is not None) for word, right in words]
    shown = shown or plain_words("(nothing)", "grey")
    return shown + (plain_words(f"(missing: {', '.join(missing)})", WRONG) if missing else [])


def _height(generated: Sequence[object], reference: Sequence[object]) -> float:
    return LINE * (len(generated) * _SIZE + len(reference) * _SMALL) + 12
