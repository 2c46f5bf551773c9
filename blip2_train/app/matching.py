"""How well texts fit an image, and where the model looks for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from blip2_train.app.captioning import needed_image
from blip2_train.app.python_code import Call
from blip2_train.data.batches.image_inputs import open_image
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.report.image_data import attention_views, heat_layer, times_uniform
from blip2_train.models.query_attention import query_attention
from blip2_train.models.word_maps import word_maps

SIDE = 320
"""Pixels of the longer side of an image with a map on it."""
MOST_TEXTS = 200


class TextScore(NamedTuple):
    """How well a text fits an image."""

    text: str
    itc: float
    """Cosine of text and best query, -1 … 1."""
    itm: float
    """Probability of a match, 0 … 1."""


class View(NamedTuple):
    """An image with a map on it."""

    image: Image.Image
    label: str


def lines_of(texts: str) -> list[str]:
    """The lines of a field that are not blank.

    Raises:
        ConfigError: if there is none, or there are too many.
    """
    lines = [line.strip() for line in texts.splitlines() if line.strip()]
    if not lines:
        raise ConfigError("there is no text; write one in each line")
    if len(lines) > MOST_TEXTS:
        raise ConfigError(f"there are {len(lines)} texts; the page takes {MOST_TEXTS}, predict.py match any number")
    return lines


def match_call(image: str | None, texts: Sequence[str]) -> Call:
    """The call that scores an image with texts."""
    return Call(method="match", image=needed_image(image), arguments={"texts": list(texts)})


def text_scores(model: Blip2, call: Call) -> list[TextScore]:
    """The scores of a call of `match_call`, the likeliest match first.

    Raises:
        Blip2TrainError: as `Blip2.match`.
    """
    itc, itm = (part[0].tolist() for part in call.run(model))
    rows = [TextScore(*row) for row in zip(call.arguments["texts"], itc, itm, strict=True)]
    return sorted(rows, key=lambda row: (-row.itm, -row.itc))


def word_views(model: Blip2, image: Path, text: str) -> list[View]:
    """For each word of a text the image with the word's map on it; all maps have one scale.

    Raises:
        Blip2TrainError: as `Blip2.match`.
    """
    network, processor = model.image_text("the map of words"), model.processor
    ids, mask = processor.texts([text])
    pixels = processor.images([image])
    with suitable_autocast(network):
        maps = word_maps(network, *(part.to(model.device) for part in (pixels, ids, mask)))[0].cpu()
    words = words_of_tokens(processor.text_tokenizer.convert_ids_to_tokens(ids[0].tolist()))
    merged = [(word, maps[rows].mean(dim=0)) for word, rows in words]
    strongest = max((float(heat.max()) for _, heat in merged), default=0.0)
    shown = open_image(image)
    return [View(with_heat(shown, heat, strongest), word) for word, heat in merged]


def query_views(model: Blip2, image: Path, text: str) -> list[View]:
    """Where the queries look while they read a text: their mean, the strongest, and the sharpest ones.

    Raises:
        Blip2TrainError: as `Blip2.match`.
    """
    network, processor = model.image_text("the map of queries"), model.processor
    ids, mask = (part.to(model.device) for part in processor.texts([text]))
    pixels = processor.images([image]).to(model.device)
    with torch.inference_mode(), suitable_autocast(network):
        maps = query_attention(network, pixels, input_ids=ids, attention_mask=mask)[0]
    shown = open_image(image)
    return [
        View(with_heat(shown, view.heat), f"{view.label}, ≤ {times_uniform(view.heat):.1f}×")
        for view in attention_views(maps)
    ]


def words_of_tokens(tokens: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Words of a tokenised text with the indices of their tokens; the tokens around the text are left out.

    Example:
        >>> words_of_tokens(["[CLS]", "a", "snow", "##man", "[SEP]"])
        [('a', [1]), ('snowman', [2, 3])]
    """
    words: list[tuple[str, list[int]]] = []
    for index, token in enumerate(tokens):
        if token in ("[CLS]", "[SEP]", "[PAD]", "[DEC]"):
            continue
        if token.startswith("##") and words:
            word, rows = words.pop()
            words.append((word + token[2:], [*rows, index]))
        else:
            words.append((token, [index]))
    return words


def with_heat(image: Image.Image, heat: Tensor, strongest: float | None = None) -> Image.Image:
    """An image with a map laid over it, see `heat_layer`.

    Args:
        image: Of any size; the map covers all of it, as the model reads it squeezed to a square.
        heat: `(h, w)`, 0 or more.
        strongest: Value that glows most; None = the map's own maximum.
    """
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    layer = Image.open(io.BytesIO(heat_layer(heat, strongest))).convert("RGBA").resize(size, Image.Resampling.BILINEAR)
    ground = image.convert("RGB").resize(size, Image.Resampling.BILINEAR).convert("RGBA")
    return Image.alpha_composite(ground, layer).convert("RGB")
