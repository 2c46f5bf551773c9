"""Generates the described scenes of one split, each from its own seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from blip2_train.data.annotations.caption_layouts import DOMAINS
from blip2_train.data.emoji_scenes.concepts import load_concepts
from blip2_train.data.emoji_scenes.grammar import CaptionWriter
from blip2_train.data.emoji_scenes.official_files import DescribedScene
from blip2_train.data.emoji_scenes.questions import QuestionWriter
from blip2_train.data.emoji_scenes.scenes import Scene, draw_concepts, draw_pattern, draw_scene, split_of, split_pool
from blip2_train.errors import ConfigError

SPLIT_NAMES = ("train", "val", "test", "nocaps")
FIRST_IMAGE_ID = 1_000_000
"""Identities of the images of split number `i` start at `(i + 1)` times this."""
MOST_TRIES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnScene:
    """A scene of one split, before anything is written about it."""

    split: str
    image_id: int
    scene: Scene
    domain: str
    """See `DescribedScene`."""
    generator: np.random.Generator
    """Its own generator, after the scene was drawn; captions are drawn from it next, then questions."""


def drawn_scenes(split: str, count: int, seed: int, first: int = 0) -> Iterator[DrawnScene]:
    """Scenes `first` … `count - 1` of a split.

    In `val`, `test` and `nocaps` no two scenes show the same things with the same counts, so those before `first` are
    drawn too; a scene of `train` depends on its index alone.

    Raises:
        ConfigError: if the split has no `count` such scenes.
    """
    concepts = load_concepts()
    known, novel = split_pool(concepts, novel=False), split_pool(concepts, novel=True)
    split_index = SPLIT_NAMES.index(split)
    seen: set[str] = set()
    for i in range(first if split == "train" else 0, count):
        generator = np.random.default_rng([seed, split_index, i])
        domain = DOMAINS[i % 3] if split == "nocaps" else ""
        for _ in range(MOST_TRIES):
            scene = _draw(domain, known, novel, generator)
            things = ",".join(f"{kind}x{count}" for kind, count in sorted(scene.counts.items()))
            # Scenes with a novel concept occur in no other split, whatever their composition.
            if (domain in ("near-domain", "out-domain") or split_of(scene.composition, seed) == split) and (
                split == "train" or things not in seen
            ):
                break
        else:
            raise ConfigError(f"{count} scenes are more than the split {split} has different ones; use at most {i}")
        seen.add(things)
        image_id = FIRST_IMAGE_ID * (split_index + 1) + i
        if i >= first:
            yield DrawnScene(split=split, image_id=image_id, scene=scene, domain=domain, generator=generator)


def captions_of(drawn: DrawnScene) -> tuple[str, ...]:
    """The captions of a scene; they advance its generator."""
    return tuple(CaptionWriter(load_concepts()).captions(drawn.scene, drawn.generator))


def question_writer(split: str) -> QuestionWriter:
    """The writer of a split's questions; it takes every scene of the split, in order."""
    concepts = load_concepts()
    known, novel = split_pool(concepts, novel=False), split_pool(concepts, novel=True)
    return QuestionWriter(concepts, known if split != "nocaps" else known + novel)


def described(drawn: DrawnScene, captions: tuple[str, ...], writer: QuestionWriter) -> DescribedScene:
    """A scene with its captions, and with questions, which are drawn after them."""
    return DescribedScene(
        split=drawn.split,
        image_id=drawn.image_id,
        scene=drawn.scene,
        captions=captions,
        questions=tuple(writer.questions(drawn.scene, drawn.generator)),
        domain=drawn.domain,
    )


def split_scenes(split: str, count: int, seed: int) -> Iterator[DescribedScene]:
    """The first `count` scenes of a split; a longer list starts with the shorter one.

    Raises:
        ConfigError: as `drawn_scenes`.
    """
    writer = question_writer(split)
    for drawn in drawn_scenes(split, count, seed):
        yield described(drawn, captions_of(drawn), writer)


def _draw(domain: str, known: list[int], novel: list[int], generator: np.random.Generator) -> Scene:
    pattern = draw_pattern(generator)
    if domain != "near-domain":
        return draw_scene(draw_concepts(pattern, novel if domain == "out-domain" else known, generator), generator)
    while len(pattern) < 2:
        pattern = draw_pattern(generator)
    first_new = bool(generator.integers(2))
    new = draw_concepts(pattern[:1] if first_new else pattern[1:], novel, generator)
    old = draw_concepts(pattern[1:] if first_new else pattern[:1], known, generator)
    mixed = new + old
    return draw_scene([mixed[i] for i in generator.permutation(len(mixed))], generator)
