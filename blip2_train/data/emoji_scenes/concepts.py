"""The concepts shown in scenes, read from the packaged names file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from blip2_train.errors import ConfigError

SPRITES_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "demo" / "sprites"
STYLES = ("google", "twitter")
SPRITE_SIZE = 64
"""Pixels per side of one image on a sheet."""
SHEET_COLUMNS = 16
"""Images in one row of a sheet; image `i` lies in row `i // 16`, column `i % 16`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One kind of thing, with an image in every style."""

    index: int
    """Index in the names file and on the sheets."""
    code: str
    """Unicode code points of the image, as in the file names of the emoji packages."""
    name: str
    """Singular, lower case, at most two words: `palm tree`."""
    plural: str
    """`palm trees`."""
    group: str
    """What kind of thing it is: `plant`."""
    synonym: str
    """Another name for it, or an empty string."""
    novel: bool
    """True: no train, val or test scene shows it; the NoCaps-like set does."""

    def counted(self, count: int) -> str:
        """The noun phrase for `count` of them: `a fox`, `two foxes`."""
        if count == 1:
            return f"{article(self.name)} {self.name}"
        return f"{NUMBER_WORDS[count]} {self.plural}"


NUMBER_WORDS = ("no", "one", "two", "three", "four")


def article(word: str) -> str:
    """`a` or `an`, by sound: `an apple`, `a unicorn`, `an hourglass`."""
    if word.startswith(("uni", "use", "eu")):
        return "a"
    return "an" if word[0] in "aeiou" or word.startswith("hour") else "a"


@lru_cache(maxsize=4)
def load_concepts(folder: Path = SPRITES_FOLDER) -> tuple[Concept, ...]:
    """The concepts in the order of the sprite sheets.

    Raises:
        ConfigError: if the names file is missing.
    """
    path = folder / "names.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; rebuild it with scripts/make_demo_assets.py sheets")
    records = json.loads(path.read_text())["concepts"]
    return tuple(Concept(index=i, **record) for i, record in enumerate(records))


@lru_cache(maxsize=4)
def load_sheet(style: str, folder: Path = SPRITES_FOLDER) -> np.ndarray:
    """The sprite sheet of a style, `(rows * 64, 1024, 4)`, uint8 RGBA.

    Raises:
        ConfigError: if the sheet is missing.
    """
    path = folder / f"{style}.png"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; rebuild it with scripts/make_demo_assets.py sheets")
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGBA"))
