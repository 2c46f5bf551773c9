"""Generates varied captions of a scene; every caption names each thing of the scene and is true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from blip2_train.data.emoji_scenes.concepts import Concept, article
from blip2_train.data.emoji_scenes.scenes import SIDE_MARGIN, Scene, region

WORD_LIMITS = (5, 16)
"""Fewest and most words of a caption."""
PLAIN = (
    "{things} on {a_ground} ground",
    "{things} on {a_ground} background",
    "{things} against {a_ground} background",
    "{things} in front of {a_ground} background",
    "{a_ground} ground with {things}",
    "{a_ground} background with {things} on it",
    "there {is_are} {things} on {a_ground} ground",
    "there {is_are} {things} on {ground}",
    "a picture of {things} on {ground}",
    "we see {things} on {a_ground} ground",
    "this {ground} picture shows {things}",
)
JOINED = {
    1: ("{0}",),
    2: ("{0} and {1}", "{0} with {1}", "{0} together with {1}", "{0} and also {1}"),
    3: ("{0} and {1} and {2}", "{0} with {1} and {2}", "{0} and {1} together with {2}"),
}
REGION_PHRASES = {
    "middle": ("in the middle", "in the center"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "left": ("on the left", "at the left"),
    "right": ("on the right", "at the right"),
    "top left": ("at the top left", "in the upper left"),
    "top right": ("at the top right", "in the upper right"),
    "bottom left": ("at the bottom left", "in the lower left"),
    "bottom right": ("at the bottom right", "in the lower right"),
}
SIDES = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
PLACED_ALONE = (
    "{thing} {where} of {a_ground} ground",
    "{where} of {a_ground} ground there is {thing}",
    "{thing} {where} on {ground}",
)
FEATURED_SHARE = 0.6
"""Probability that a caption states positions of things, if it can."""


def sides(scene: Scene, first: int, second: int) -> list[str]:
    """Position of all things of concept `first` relative to those of `second`: some of left, right, above, below."""
    names = []
    for axis, (before, after) in enumerate((("left", "right"), ("above", "below"))):
        ours = [item.center[axis] for item in scene.items if item.concept == first]
        theirs = [item.center[axis] for item in scene.items if item.concept == second]
        if max(ours) + SIDE_MARGIN <= min(theirs):
            names.append(before)
        elif min(ours) - SIDE_MARGIN >= max(theirs):
            names.append(after)
    return names


def _pick(options: Sequence[str], generator: np.random.Generator) -> str:
    return options[int(generator.integers(len(options)))]


class CaptionWriter:
    """Generates captions of scenes over a list of concepts."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self.concepts = concepts

    def captions(self, scene: Scene, generator: np.random.Generator, count: int = 5) -> list[str]:
        """`count` different captions: ASCII words in lower case, no punctuation; the first names the ground."""
        captions: list[str] = []
        for caption in self._drafts(scene, generator):
            words = len(caption.split())
            if WORD_LIMITS[0] <= words <= WORD_LIMITS[1] and caption not in captions:
                captions.append(caption)
                if len(captions) == count:
                    break
        return captions

    def _drafts(self, scene: Scene, generator: np.random.Generator) -> Iterator[str]:
        yield self._plain(scene, generator)
        while True:
            featured = self._featured(scene, generator) if generator.random() < FEATURED_SHARE else None
            yield featured or self._plain(scene, generator)

    def _phrase(self, concept: int, count: int, generator: np.random.Generator) -> str:
        kind = self.concepts[concept]
        if count == 1 and generator.random() < 0.15:
            return f"one {kind.name}"
        if count == 2 and generator.random() < 0.15:
            return f"a pair of {kind.plural}"
        return kind.counted(count)

    def _plain(self, scene: Scene, generator: np.random.Generator) -> str:
        kinds = list(scene.counts)
        order = [kinds[i] for i in generator.permutation(len(kinds))]
        things = [self._phrase(kind, scene.counts[kind], generator) for kind in order]
        is_are = "is" if scene.counts[order[0]] == 1 or things[0].startswith("a pair") else "are"
        joined = _pick(JOINED[len(things)], generator).format(*things)
        return _pick(PLAIN, generator).format(things=joined, is_are=is_are, **_ground(scene))

    def _featured(self, scene: Scene, generator: np.random.Generator) -> str | None:
        if len(scene.items) == 1:
            return self._placed_alone(scene, generator)
        if len(scene.counts) == 2 and len(scene.items) == 2 and generator.random() < 0.4:
            return self._placed_pair(scene, generator)
        return self._related(scene, generator)

    def _placed_alone(self, scene: Scene, generator: np.random.Generator) -> str:
        item = scene.items[0]
        where, thing = _pick(REGION_PHRASES[region(item)], generator), self._phrase(item.concept, 1, generator)
        return _pick(PLACED_ALONE, generator).format(where=where, thing=thing, **_ground(scene))

    def _placed_pair(self, scene: Scene, generator: np.random.Generator) -> str:
        things = [
            f"{self._phrase(item.concept, 1, generator)} {_pick(REGION_PHRASES[region(item)], generator)}"
            for item in (scene.items[i] for i in generator.permutation(2))
        ]
        caption = f"{things[0]} and {things[1]} on {scene.ground}"
        return caption if len(caption.split()) <= WORD_LIMITS[1] else f"{things[0]} and {things[1]}"

    def _related(self, scene: Scene, generator: np.random.Generator) -> str | None:
        pairs = [(a, b, side) for a in scene.counts for b in scene.counts if a != b for side in sides(scene, a, b)]
        if not pairs:
            return None
        first, second, side = pairs[int(generator.integers(len(pairs)))]
        thing, other = (self._phrase(kind, scene.counts[kind], generator) for kind in (first, second))
        caption = f"{thing} {_pick(SIDES[side], generator)} {other}"
        for rest in set(scene.counts) - {first, second}:
            caption += f" with {self._phrase(rest, scene.counts[rest], generator)}"
        ending = _pick(("on {ground}", "on {a_ground} ground"), generator).format(**_ground(scene))
        return (
            f"{caption} {ending}"
            if len(f"{caption} {ending}".split()) <= WORD_LIMITS[1]
            else f"{caption} on {scene.ground}"
        )


def _ground(scene: Scene) -> dict[str, str]:
    return {"ground": scene.ground, "a_ground": f"{article(scene.ground)} {scene.ground}"}
