"""A noisy data set, as from the web: scenes with one caption each, some of which describe another scene."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from blip2_train.data.emoji_scenes.naming import names_right
from blip2_train.data.emoji_scenes.scenes import SCENE_SIZE
from blip2_train.data.order import permutation, stable_seed
from blip2_train.data.shards.writer import ShardWriter
from blip2_train.data.sources.shard_source import ShardSource

_SAMPLES_PER_SHARD = 1000


def write_noisy_shards(scenes: ShardSource, folder: Path, share: float, seed: int) -> Path:
    """Copy scenes with one of their captions, or with one of another scene, atomically.

    Each record has the truth: `wrong`, and `right_captions`, all captions of the scene.

    Args:
        scenes: shards of the emoji scenes.
        folder: must not exist.
        share: share of the scenes that get a wrong caption.
        seed: seed of the choice of scenes and captions.
    """
    unfinished = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    caption_sources = _caption_sources(scenes, share, seed)
    with ShardWriter(unfinished, samples_per_shard=_SAMPLES_PER_SHARD) as writer:
        for index in range(len(scenes)):
            record, details = scenes.read(index), scenes.details(index)
            extra = {
                "image_id": details["image_id"],
                "wrong": index in caption_sources,
                "right_captions": list(record.captions),
            }
            caption = _caption(scenes, caption_sources.get(index, index), seed)
            writer.write(record.image, caption, size=(SCENE_SIZE, SCENE_SIZE), url=details["url"], extra=extra)
    unfinished.rename(folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class CaptionFaults:
    """Counts of right and wrong captions of a set, and of the injected ones that are left."""

    captions: int
    wrong: int
    """Captions that do not name exactly the things of their scene."""
    scenes: int
    scenes_without_right: int
    """Scenes none of whose captions names exactly its things."""
    injected: int
    """Scenes that were given a caption of another scene."""
    injected_left: int
    """Of them, those that still have it."""
    right_left: int
    """Of the other scenes, those that still have the caption that they were given."""


def find_faults(shards: ShardSource) -> CaptionFaults:
    """Compare the captions of a noisy set, or of CapFilt's output from it, with the truth in its records."""
    captions = wrong = without = injected = injected_left = right_left = 0
    for index in range(len(shards)):
        texts, details = shards.read(index).captions, shards.details(index)
        right = sum(names_right(caption, details["right_captions"]) for caption in texts)
        captions, wrong, without = captions + len(texts), wrong + len(texts) - int(right), without + (right == 0)
        left = "original" in details.get("caption_origins", ["original"])
        injected += details["wrong"]
        injected_left += details["wrong"] and left
        right_left += not details["wrong"] and left
    return CaptionFaults(
        captions=captions,
        wrong=wrong,
        scenes=len(shards),
        scenes_without_right=without,
        injected=injected,
        injected_left=injected_left,
        right_left=right_left,
    )


def _caption_sources(scenes: ShardSource, share: float, seed: int) -> dict[int, int]:
    """For each scene with a wrong caption, the scene whose caption it gets, which shows other things."""
    order = permutation(len(scenes), "wrong captions", seed).tolist()
    caption_sources = {}
    for position in range(round(share * len(order))):
        own = scenes.read(order[position]).captions
        others = (order[(position + step) % len(order)] for step in range(1, len(order)))
        caption_sources[order[position]] = next(
            other for other in others if not names_right(_caption(scenes, other, seed), own)
        )
    return caption_sources


def _caption(scenes: ShardSource, index: int, seed: int) -> str:
    """One of the captions of a scene, always the same."""
    captions = scenes.read(index).captions
    return captions[stable_seed("caption", seed, index) % len(captions)]
