"""The three attention masks of stage 1, drawn from the functions that training calls."""

from __future__ import annotations

import io

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from blip2_train.models.masks import bidirectional, multimodal_causal, unimodal

QUERIES, TOKENS, REAL = 4, 5, 4
_TITLES = ("ITC: apart", "ITM: together", "ITG: text after the queries")
_SEES, _BLIND = "#2f6fab", "#e8e8e8"


def masks() -> list[Tensor]:
    """The masks of ITC, ITM and ITG over `[queries ; text]`, the text with one token of padding.

    Returns:
        Three tensors `(Q + T, Q + T)`, bool, True = the row may attend to the column.
    """
    real = (torch.arange(TOKENS) < REAL)[None]
    size = QUERIES + TOKENS
    apart, causal = torch.zeros(size, size, dtype=torch.bool), torch.zeros(size, size, dtype=torch.bool)
    apart[:QUERIES, :QUERIES] = causal[:QUERIES, :QUERIES] = True
    apart[QUERIES:, QUERIES:] = unimodal(real)[0, 0]
    causal[QUERIES:] = multimodal_causal(real, QUERIES)[0, 0]
    return [apart, bidirectional(real, QUERIES)[0, 0].expand(size, size), causal]


def masks_png() -> bytes:
    """The figure as a PNG file."""
    content = io.BytesIO()
    _draw().savefig(content, format="png", dpi=150, facecolor="white")
    return content.getvalue()


def _draw() -> Figure:
    """The masks side by side; a row may attend to the columns that are blue."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    words = ["[CLS]", "two", "red", "cars", "[PAD]"]
    for axes, title, mask in zip(figure.subplots(1, 3), _TITLES, masks(), strict=True):
        names = [f"query {n + 1}" for n in range(QUERIES)] + (["[DEC]", *words[1:]] if "ITG" in title else words)
        for row in range(len(names)):
            for column in range(len(names)):
                color = _SEES if mask[row, column] else _BLIND
                axes.add_patch(Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, color=color, linewidth=0))
        axes.set(title=title, xlim=(0, len(names)), ylim=(len(names), 0), aspect="equal")
        axes.set_xticks([n + 0.5 for n in range(len(names))], names, rotation=90)
        axes.set_yticks([n + 0.5 for n in range(len(names))], names)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        axes.axhline(QUERIES, color="black", linewidth=1)
        axes.axvline(QUERIES, color="black", linewidth=1)
    return figure
