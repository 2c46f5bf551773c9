"""Writes the whole world to a folder in the official formats, atomically."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from blip2_train.data.emoji_scenes.layout import QUESTIONED, WorldPaths, WorldSize
from blip2_train.data.emoji_scenes.official_files import DescribedScene, caption_json, karpathy_json, vqa_json
from blip2_train.data.emoji_scenes.parts import WorldPart, world_parts, write_part
from blip2_train.data.emoji_scenes.split_scenes import described, question_writer
from blip2_train.data.prepare.engine import LocalEngine, cores
from blip2_train.errors import ConfigError

logger = logging.getLogger(__name__)

MARKER = "world.json"
_WORTH_PROCESSES = 2000
"""Scenes from which processes are worth their start."""
_SECONDS_BETWEEN_LINES = 10.0
_T = TypeVar("_T")


def write_world(
    folder: Path | str,
    *,
    seed: int = WorldSize.seed,
    train_scenes: int = WorldSize.train_scenes,
    val_scenes: int = WorldSize.val_scenes,
    test_scenes: int = WorldSize.test_scenes,
    nocaps_scenes: int = WorldSize.nocaps_scenes,
    samples_per_shard: int = WorldSize.samples_per_shard,
    image_folders: Sequence[str] = WorldSize.image_folders,
) -> WorldPaths:
    """Write a world; the same arguments give the same bytes.

    Everything is written to a folder beside `folder`, which is renamed at the end: a world that exists is complete.

    Args:
        folder: a folder that does not exist or is empty.
        seed: seed of every random choice.
        train_scenes: scenes of the training split, in shards; likewise the other splits.
        samples_per_shard: scenes per shard.
        image_folders: splits whose images are also written as files.

    Raises:
        ConfigError: if `folder` holds something, a number is negative, or a split has too few different scenes.
    """
    size = WorldSize(
        seed=seed,
        train_scenes=train_scenes,
        val_scenes=val_scenes,
        test_scenes=test_scenes,
        nocaps_scenes=nocaps_scenes,
        samples_per_shard=samples_per_shard,
        image_folders=tuple(image_folders),
    )
    folder = Path(folder)
    size.check()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; choose another folder for the world, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.writing-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _fill(WorldPaths(root=unfinished), size)
        (unfinished / MARKER).write_text(json.dumps(size.fingerprint(), indent=1) + "\n")
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return WorldPaths(root=folder)


def ensure_world(
    folder: Path | str,
    *,
    seed: int = WorldSize.seed,
    train_scenes: int = WorldSize.train_scenes,
    val_scenes: int = WorldSize.val_scenes,
    test_scenes: int = WorldSize.test_scenes,
    nocaps_scenes: int = WorldSize.nocaps_scenes,
    samples_per_shard: int = WorldSize.samples_per_shard,
    image_folders: Sequence[str] = WorldSize.image_folders,
) -> WorldPaths:
    """The world in `folder`, written first if the folder is missing or empty (arguments as `write_world`).

    Raises:
        ConfigError: if the folder holds something else, or a world of other arguments.
    """
    settings = {
        "seed": seed,
        "train_scenes": train_scenes,
        "val_scenes": val_scenes,
        "test_scenes": test_scenes,
        "nocaps_scenes": nocaps_scenes,
        "samples_per_shard": samples_per_shard,
    }
    folder, size = Path(folder), WorldSize(**settings, image_folders=tuple(image_folders))
    if not is_written(folder):
        logger.info("writing the emoji scenes to %s (once)", folder)
        try:
            return write_world(folder, **settings, image_folders=image_folders)
        except OSError:
            if not (folder / MARKER).is_file():  # otherwise another process was faster; its world is checked below
                raise
    if not (folder / MARKER).is_file():
        raise ConfigError(
            f"{folder} holds something that is no world of emoji scenes; choose another folder or remove it"
        )
    refuse_other_world(folder, json.loads((folder / MARKER).read_text()), size.fingerprint())
    return WorldPaths(root=folder)


def refuse_other_world(path: Path, held: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a path that holds a world of other arguments; raises `ConfigError`."""
    if other := [key for key in expected if held.get(key) != expected[key]]:
        listed = ", ".join(f"{key} {held.get(key)!r} instead of {expected[key]!r}" for key in other)
        raise ConfigError(f"{path} holds another world ({listed}); choose another folder or remove it")


def is_written(folder: Path) -> bool:
    """Whether a folder holds something; false if it is missing or empty."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _fill(paths: WorldPaths, size: WorldSize) -> None:
    paths.karpathy.parent.mkdir(parents=True)
    listed: list[DescribedScene] = []
    parts = world_parts(size)
    many = sum(part.scenes for part in parts) >= _WORTH_PROCESSES and _forks()
    written = LocalEngine(min(cores(), len(parts)) if many else 1)(partial(write_part, paths, size), parts)
    for split, group in groupby(_reported(parts, written), key=lambda pair: pair[0].split):
        writer = question_writer(split)
        scenes = [described(drawn, captions, writer) for _, part in group for drawn, captions in part]
        if split != "train":
            _write_json(paths.captions(split), caption_json(scenes, domains=split == "nocaps"))
        if split in QUESTIONED:
            questions, answers = vqa_json(scenes)
            _write_json(paths.questions(split), questions)
            _write_json(paths.answers(split), answers)
        if split in size.image_folders and split != "nocaps":
            listed += scenes
    _write_json(paths.karpathy, karpathy_json(listed))


def _reported(parts: Sequence[WorldPart], written: Iterable[_T]) -> Iterator[tuple[WorldPart, _T]]:
    """Each part with what was written of it; at most every ten seconds a line says how many scenes are there."""
    done, total, last = 0, sum(part.scenes for part in parts), time.monotonic()
    for part, content in zip(parts, written, strict=True):
        done += part.scenes
        if done < total and (now := time.monotonic()) - last > _SECONDS_BETWEEN_LINES:
            last = now
            logger.info("%s of %s scenes are written", f"{done:,}", f"{total:,}")
        yield part, content


def _forks() -> bool:
    """Whether new processes are copies of this one (start method fork).

    With spawn and forkserver they import the main module again, so a plain script without the guard
    `if __name__ == "__main__":` would run again in each of them.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return (chosen or multiprocessing.get_all_start_methods()[0]) == "fork"  # the first one is the default


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
