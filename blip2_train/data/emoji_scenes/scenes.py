"""Composes scenes from things, counts, positions and grounds, and assigns compositions to splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from blip2_train.data.emoji_scenes.concepts import STYLES, Concept

SCENE_SIZE = 96
"""Pixels per side."""
GROUNDS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "white")
SIZES = {1: (44, 62), 2: (36, 48), 3: (30, 40), 4: (28, 36)}
"""Smallest and largest side of an image in pixels, by the number of images of the scene."""
PATTERNS = (
    ((1,), 0.20),
    ((1, 1), 0.36),
    ((2,), 0.08),
    ((3,), 0.04),
    ((2, 1), 0.11),
    ((1, 1, 1), 0.15),
    ((2, 2), 0.02),
    ((3, 1), 0.02),
    ((4,), 0.02),
)
"""Counts of a scene's concepts, with the share of scenes that have these counts."""
SPLITS = (("train", 0.76), ("val", 0.08), ("test", 0.08), ("nocaps", 0.08))
"""Share of all compositions that belong to each split."""
MAX_OVERLAP = 0.12
"""Largest share of the smaller of two images' squares that may lie under the other."""
SIDE_MARGIN = 10.0
"""Pixels between two centres from which one image counts as left of, right of, above or below the other."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image in a scene."""

    concept: int
    """Index of the concept."""
    left: int
    """Pixels from the left edge."""
    top: int
    """Pixels from the top edge."""
    size: int
    """Pixels per side."""

    @property
    def center(self) -> tuple[float, float]:
        """Its centre: x and y in pixels."""
        return self.left + self.size / 2, self.top + self.size / 2


@dataclass(frozen=True)
class Scene:
    """Everything that determines how a scene looks."""

    items: tuple[Item, ...]
    style: int
    """Index into `STYLES`."""
    ground: str
    ground_jitter: tuple[float, float, float]
    """Added to red, green and blue (0 to 255)."""
    shade: tuple[float, float]
    """Difference in brightness (0 to 255) between right and left, and between bottom and top."""

    @cached_property
    def counts(self) -> dict[int, int]:
        """Number of each concept, in the order of drawing."""
        return dict(Counter(item.concept for item in self.items))

    @property
    def composition(self) -> str:
        """Key that no two splits share: concepts with counts; for a single image also style, ground and region."""
        what = ",".join(f"{concept}x{count}" for concept, count in sorted(self.counts.items()))
        if len(self.items) > 1:
            return what
        return f"{what}/{STYLES[self.style]}/{self.ground}/{region(self.items[0])}"


def region(item: Item) -> str:
    """The part of the scene that contains the image's centre: `middle`, `top`, `bottom left`."""
    x, y = item.center
    near, far = SCENE_SIZE * 0.42, SCENE_SIZE * 0.58
    row = "top" if y < near else "bottom" if y > far else ""
    column = "left" if x < near else "right" if x > far else ""
    return f"{row} {column}".strip() or "middle"


def split_of(composition: str, seed: int) -> str:
    """The one split that a composition belongs to; a pure function of both arguments."""
    digest = hashlib.sha256(f"{seed}:{composition}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in SPLITS:
        draw -= share
        if draw < 0:
            return name
    return SPLITS[-1][0]


def _lay_out(sizes: Sequence[int], generator: np.random.Generator) -> list[tuple[int, int]] | None:
    corners: list[tuple[int, int]] = []
    for i, size in enumerate(sizes):
        draws = generator.integers(0, SCENE_SIZE - size + 1, size=(24, 2)).tolist()
        for left, top in draws:
            if all(_overlap(left, top, size, *corners[j], sizes[j]) <= MAX_OVERLAP for j in range(i)):
                corners.append((left, top))
                break
        else:
            return None
    return corners


def _overlap(left: int, top: int, size: int, other_left: int, other_top: int, other_size: int) -> float:
    width = min(left + size, other_left + other_size) - max(left, other_left)
    height = min(top + size, other_top + other_size) - max(top, other_top)
    return max(width, 0) * max(height, 0) / min(size, other_size) ** 2


def draw_scene(concepts: Sequence[int], generator: np.random.Generator) -> Scene:
    """A scene that shows one image per entry of `concepts`, everything else drawn from `generator`."""
    smallest, largest = SIZES[len(concepts)]
    corners = None
    while corners is None:
        sizes = (2 * generator.integers(smallest // 2, largest // 2 + 1, size=len(concepts))).tolist()
        corners = _lay_out(sizes, generator)
    jitter = generator.uniform(-12, 12, size=3).round(2).tolist()
    shade = generator.uniform(-36, 36, size=2).round(2).tolist()
    return Scene(
        items=tuple(Item(c, left, top, size) for c, (left, top), size in zip(concepts, corners, sizes, strict=True)),
        style=int(generator.integers(len(STYLES))),
        ground=GROUNDS[int(generator.integers(len(GROUNDS)))],
        ground_jitter=(jitter[0], jitter[1], jitter[2]),
        shade=(shade[0], shade[1]),
    )


def draw_pattern(generator: np.random.Generator) -> tuple[int, ...]:
    """Counts of the concepts of the next scene."""
    draw = generator.random() * sum(share for _, share in PATTERNS)
    for pattern, share in PATTERNS:
        draw -= share
        if draw < 0:
            return pattern
    return PATTERNS[0][0]


def draw_concepts(pattern: Sequence[int], pool: Sequence[int], generator: np.random.Generator) -> list[int]:
    """Distinct concepts of `pool`, each repeated as `pattern` says, in random order."""
    kinds = generator.choice(len(pool), size=len(pattern), replace=False)
    chosen = [pool[int(kind)] for kind, count in zip(kinds, pattern, strict=True) for _ in range(count)]
    return [chosen[i] for i in generator.permutation(len(chosen))]


def split_pool(concepts: Sequence[Concept], *, novel: bool) -> list[int]:
    """Indices of the novel concepts, or of the others."""
    return [concept.index for concept in concepts if concept.novel == novel]
