"""The image of the demo's test set that the README's program looks at."""

from __future__ import annotations

from blip2_train.data.emoji_scenes.layout import WorldSize
from blip2_train.data.emoji_scenes.parts import scene_jpeg
from blip2_train.data.emoji_scenes.split_scenes import split_scenes


def scene_jpg() -> bytes:
    """The file of the first test scene, 96 pixels a side."""
    return scene_jpeg(next(iter(split_scenes("test", 1, WorldSize.seed))).scene)
