"""Renders a scene: images pasted on a softly shaded ground."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from blip2_train.data.emoji_scenes.concepts import SHEET_COLUMNS, SPRITE_SIZE, STYLES, load_sheet
from blip2_train.data.emoji_scenes.scenes import SCENE_SIZE, Scene

GROUND_COLORS = {
    "red": (205, 60, 55),
    "orange": (238, 148, 52),
    "yellow": (240, 220, 90),
    "green": (96, 170, 90),
    "blue": (70, 120, 205),
    "purple": (140, 90, 180),
    "pink": (242, 165, 195),
    "brown": (135, 92, 60),
    "gray": (140, 142, 145),
    "white": (243, 243, 240),
}
"""Mean colour of each ground."""

_RAMP = np.linspace(-0.5, 0.5, SCENE_SIZE, dtype=np.float32)


@cache
def sprite(style: str, concept: int, size: int) -> Image.Image:
    """The image of a concept, `size` pixels wide, RGBA; cached."""
    row, column = divmod(concept, SHEET_COLUMNS)
    top, left = row * SPRITE_SIZE, column * SPRITE_SIZE
    cut = Image.fromarray(np.ascontiguousarray(load_sheet(style)[top : top + SPRITE_SIZE, left : left + SPRITE_SIZE]))
    return cut if size == SPRITE_SIZE else cut.resize((size, size), Image.Resampling.BILINEAR)


def ground(scene: Scene) -> Image.Image:
    """The empty ground of a scene: its colour with jitter, and a linear shade in the direction of `scene.shade`."""
    jitter = np.array(scene.ground_jitter, dtype=np.float32)
    across, down = scene.shade
    shading = (_RAMP * across)[None, :] + (_RAMP * down)[:, None]
    pixels = (np.array(GROUND_COLORS[scene.ground], dtype=np.float32) + jitter)[None, None, :] + shading[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of 96 x 96 pixels."""
    canvas = ground(scene)
    style = STYLES[scene.style]
    for item in scene.items:
        image = sprite(style, item.concept, item.size)
        canvas.paste(image, (item.left, item.top), image)
    return canvas
