"""What a text finds: one row of images for each, the best first, the right one marked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from blip2_train.evaluation.figures.captions import RIGHT
from blip2_train.evaluation.figures.lettering import DPI, LINE, Lettering, plain_words

_SIDE, _GAP, _TEXT, _SIZE = 1.25, 0.12, 2.6, 9.5
"""Inches of an image, between two, and of the texts; points of their letters."""


@dataclass(frozen=True, kw_only=True)
class RetrievedImages:
    """A text, and the images that fit it best."""

    text: str
    images: Tensor
    """`(K, 3, h, w)`, 0 … 1, the best first."""
    scores: Sequence[float]
    """Cosine similarity of each."""
    right: Sequence[bool]
    """Whether it is the text's own image."""
    rank: int
    """Of the best of the text's own images among all, 1 = first."""


def retrieval_figure(title: str, retrieved: Sequence[RetrievedImages]) -> bytes:
    """A PNG with a row for each text.

    Args:
        title: Above all.
        found: The rows, each with as many images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lettering = Lettering([title, *(row.text for row in retrieved)])
    columns, head = max(len(row.images) for row in retrieved), 0.55
    width = _TEXT + columns * (_SIDE + _GAP) + 2 * _GAP
    height = head + len(retrieved) * (_SIDE + 0.34)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.text(_GAP / width, 1 - 0.15 / height, lettering.shown(title), va="top", fontsize=11,
                family=lettering.families, parse_math=False)  # fmt: skip
    for number, row in enumerate(retrieved):
        bottom = height - head - (number + 1) * (_SIDE + 0.34) + 0.3
        texts = figure.add_axes((_GAP / width, (bottom + _SIDE) / height, _TEXT / width, 1e-3))
        texts.axis("off")
        lines = lettering.lines(plain_words(row.text), 72 * (_TEXT - 0.2), _SIZE)[:6]
        lettering.draw(texts, lines, _SIZE, 0)
        rank = plain_words(f"right image: rank {row.rank}", RIGHT if row.rank == 1 else "grey")
        lettering.draw(texts, lettering.lines(rank, 72 * _TEXT, 8), 8, 4 + len(lines) * LINE * _SIZE)
        for column, (image, score, right) in enumerate(zip(row.images, row.scores, row.right, strict=True)):
            left = _TEXT + 2 * _GAP + column * (_SIDE + _GAP)
            axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=RIGHT if right else "#cccccc", linewidth=4 if right else 0.8)
            axes.set_xlabel(f"{score:.3f}" + (" ✓" if right else ""), fontsize=8, color=RIGHT if right else "grey",
                            labelpad=2)  # fmt: skip
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png", facecolor="white")
    return file.getvalue()
