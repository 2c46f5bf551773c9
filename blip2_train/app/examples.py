"""Test scenes to click on, with what can be asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from blip2_train.data.emoji_scenes.layout import WorldSize
from blip2_train.data.emoji_scenes.parts import scene_jpeg
from blip2_train.data.emoji_scenes.split_scenes import split_scenes

EXAMPLES = "the examples"
"""Name of the folder of the examples, where folders are chosen."""
COUNT = 24
"""Images that are written; the first are shown to click on."""
SHOWN = 8


class Example(NamedTuple):
    """An image, and texts that go with it."""

    image: Path
    question: str
    texts: str
    """A right caption and wrong ones, one in each line."""


def write_examples(folder: Path, count: int = COUNT) -> list[Example]:
    """Write the images of the first emoji scenes of the test split, and give them with their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = list(split_scenes("test", count, WorldSize.seed))
    made = []
    for index, described in enumerate(scenes):
        image = folder / f"scene_{index}.jpg"
        image.write_bytes(scene_jpeg(described.scene))
        wrong = [scenes[(index + step) % count].captions[0] for step in (1, 2, 3) if step < count]
        texts = "\n".join([described.captions[0], *wrong])
        made.append(Example(image, described.questions[0].text, texts))
    return made
