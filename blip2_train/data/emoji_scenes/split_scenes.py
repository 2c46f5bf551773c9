"""Generates the described scenes of one split, each from its own seed."""

from __future__ import annotations

from collections.abc import Iterator

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


def split_scenes(split: str, count: int, seed: int) -> Iterator[DescribedScene]:
    """The first `count` scenes of a split; a longer list starts with the shorter one.

    In `val`, `test` and `nocaps` no two scenes show the same things with the same counts.

    Raises:
        ConfigError: if the split has no `count` such scenes, or no room for their identities.
    """
    if count >= FIRST_IMAGE_ID:
        raise ConfigError(f"{split} has {count} scenes; at most {FIRST_IMAGE_ID - 1} fit")
    concepts = load_concepts()
    known, novel = split_pool(concepts, novel=False), split_pool(concepts, novel=True)
    captions = CaptionWriter(concepts)
    questions = QuestionWriter(concepts, known if split != "nocaps" else known + novel)
    split_index = SPLIT_NAMES.index(split)
    seen: set[str] = set()
    for i in range(count):
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
        yield DescribedScene(
            split=split,
            image_id=FIRST_IMAGE_ID * (split_index + 1) + i,
            scene=scene,
            captions=tuple(captions.captions(scene, generator)),
            questions=tuple(questions.questions(scene, generator)),
            domain=domain,
        )


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
