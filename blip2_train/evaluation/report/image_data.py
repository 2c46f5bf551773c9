"""Images and heat maps as `data:` addresses, small enough that a page can hold hundreds."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from blip2_train.data.batches.images import decode_image
from blip2_train.data.rejections import UnusableSample
from blip2_train.evaluation.report.content import AttentionView, WordView

LONGEST_SIDE, QUALITY = 320, 80
HEAT_SIDE, HEAT_LEVELS = 48, 48
_DIM, _GLOW = 0.62, 0.42


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """An image inside the page."""

    address: str
    """`data:image/webp;base64,…`"""
    width: int
    """Pixels, as embedded."""
    height: int


def embed_image(content: bytes | Path, longest: int = LONGEST_SIDE) -> EmbeddedImage | None:
    """An image of at most `longest` pixels per side, without its metadata; None if it cannot be read."""
    try:
        image = decode_image(content.read_bytes() if isinstance(content, Path) else content)
    except (UnusableSample, OSError):
        return None
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    clean = Image.frombytes("RGB", image.size, image.tobytes())
    clean.save(file, "WEBP", quality=QUALITY)
    return EmbeddedImage(address=data_address(file.getvalue(), "webp"), width=image.width, height=image.height)


def data_address(content: bytes, kind: str) -> str:
    """An image file of format `kind` as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def attention_views(maps: Tensor, sharpest: int = 4) -> tuple[AttentionView, ...]:
    """Views of the attention of Q queries to one image.

    Args:
        maps: `(Q, h, w)`, a row of what `query_attention` gives.
        sharpest: How many single queries: those that look at the fewest patches (lowest entropy).

    Returns:
        The mean and the maximum over the queries, then single queries, sharpest first.
    """
    maps = maps.detach().float().cpu()
    share = maps.flatten(1) / maps.flatten(1).sum(1, keepdim=True).clamp(min=1e-12)
    entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
    single = entropy.argsort(stable=True)[:sharpest].tolist()
    return (
        AttentionView(label="mean of queries", heat=maps.mean(0)),
        AttentionView(label="strongest query", heat=maps.amax(0)),
        *(AttentionView(label=f"query {number}", heat=maps[number]) for number in single),
    )


def times_uniform(heat: Tensor) -> float:
    """How many times more than the average patch the brightest one gets: 1 = uniform."""
    return float(heat.max() / heat.mean().clamp(min=1e-12))


def heat_layer(heat: Tensor, strongest: float | None = None) -> bytes:
    """A PNG to lay over the whole image: dark where attention is none, glowing where it is strongest.

    Args:
        heat: `(h, w)`, 0 or more; it is made finer (bicubic).
        strongest: Value that glows most; None = the map's own maximum. Maps with the same one can be compared.
    """
    from matplotlib import colormaps

    fine = max(1, HEAT_SIDE // max(heat.shape))
    values = F.interpolate(heat[None, None].float().cpu(), scale_factor=fine, mode="bicubic")[0, 0].clamp(min=0)
    share = (values / max(float(values.max()) if strongest is None else strongest, 1e-12)).clamp(max=1)
    levels = (share * (HEAT_LEVELS - 1)).round().to(torch.uint8)
    strength = np.linspace(0.0, 1.0, HEAT_LEVELS)
    colours = (colormaps["inferno"](strength)[:, :3] * 255).round().astype(np.uint8)
    alpha = ((_DIM + (_GLOW - _DIM) * strength) * 255).round().astype(np.uint8)
    image = Image.fromarray(levels.numpy())
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=alpha.tobytes())
    return file.getvalue()


def heat_addresses(views: Sequence[AttentionView]) -> list[tuple[str, str]]:
    """Label with `times_uniform`, and address of the heat layer of each view."""
    return [
        (f"{view.label}, ≤ {times_uniform(view.heat):.1f}×", data_address(heat_layer(view.heat), "png"))
        for view in views
    ]


def word_addresses(words: Sequence[WordView]) -> list[tuple[str, str]]:
    """Each word that has a map, and the address of its heat layer; they glow by one scale, so that they compare."""
    mapped = [(one.word, one.heat) for one in words if one.heat is not None]
    strongest = max((float(heat.max()) for _, heat in mapped), default=0.0)
    return [(word, data_address(heat_layer(heat, strongest), "png")) for word, heat in mapped]
