"""Writes the whole world to a folder in the official formats, atomically."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blip2_train.data.emoji_scenes.concepts import SPRITES_FOLDER
from blip2_train.data.emoji_scenes.official_files import DescribedScene, caption_json, karpathy_json, vqa_json
from blip2_train.data.emoji_scenes.render import render
from blip2_train.data.emoji_scenes.scenes import SCENE_SIZE
from blip2_train.data.emoji_scenes.split_scenes import SPLIT_NAMES, split_scenes
from blip2_train.data.shards.writer import ShardWriter
from blip2_train.errors import ConfigError

logger = logging.getLogger(__name__)

WORLD_VERSION = 1
"""Version of the world; increased when the same arguments give another one."""
MARKER = "world.json"
JPEG_QUALITY = 90
SHARDED = ("train", "val", "test")
QUESTIONED = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldPaths:
    """Paths of the parts of a written world."""

    root: Path

    def shards(self, split: str) -> Path:
        """Folder of the shards of `train`, `val` or `test`."""
        return self.root / "shards" / split

    @property
    def images(self) -> Path:
        """Folder in which `<split>/<file name>` are the images of the splits written as files."""
        return self.root / "images"

    @property
    def karpathy(self) -> Path:
        """Karpathy's layout (`dataset_coco.json`) over all splits written as files."""
        return self.root / "annotations" / "dataset_emoji.json"

    def captions(self, split: str) -> Path:
        """COCO caption annotations of `val` or `test`; for `nocaps` with a domain per image."""
        return self.root / "annotations" / f"captions_{split}.json"

    def questions(self, split: str) -> Path:
        """VQAv2 questions of `train`, `val` or `test`."""
        return self.root / "annotations" / f"vqa_{split}_questions.json"

    def answers(self, split: str) -> Path:
        """VQAv2 annotations of `train`, `val` or `test`."""
        return self.root / "annotations" / f"vqa_{split}_annotations.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSize:
    """The arguments that determine every byte of a world, beside the packaged images."""

    seed: int
    train_scenes: int
    val_scenes: int
    test_scenes: int
    nocaps_scenes: int
    samples_per_shard: int
    image_folders: tuple[str, ...]
    """Splits whose images are written as files too; Karpathy's file lists these."""

    def scenes(self, split: str) -> int:
        """Number of scenes of a split."""
        return int(getattr(self, f"{split}_scenes"))

    def fingerprint(self) -> dict[str, Any]:
        """Plain values that identify this world."""
        images = hashlib.sha256()
        for path in sorted(SPRITES_FOLDER.iterdir()):
            images.update(path.read_bytes())
        return {"version": WORLD_VERSION, "pictures": images.hexdigest(), **json.loads(json.dumps(asdict(self)))}


def write_world(
    folder: Path | str,
    *,
    seed: int = 1,
    train_scenes: int = 24_000,
    val_scenes: int = 512,
    test_scenes: int = 512,
    nocaps_scenes: int = 384,
    samples_per_shard: int = 1000,
    image_folders: Sequence[str] = ("val", "test", "nocaps"),
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
    _check(size)
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
    seed: int = 1,
    train_scenes: int = 24_000,
    val_scenes: int = 512,
    test_scenes: int = 512,
    nocaps_scenes: int = 384,
    samples_per_shard: int = 1000,
    image_folders: Sequence[str] = ("val", "test", "nocaps"),
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
    folder, expected = Path(folder), WorldSize(**settings, image_folders=tuple(image_folders)).fingerprint()
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        logger.info("writing the embedded world to %s (once)", folder)
        try:
            return write_world(folder, **settings, image_folders=image_folders)
        except OSError:
            if not (folder / MARKER).is_file():  # otherwise another process was faster; its world is checked below
                raise
    if not (folder / MARKER).is_file():
        raise ConfigError(
            f"{folder} holds something that is no world of emoji scenes; choose another folder or remove it"
        )
    held = json.loads((folder / MARKER).read_text())
    if other := [key for key in expected if held.get(key) != expected[key]]:
        listed = ", ".join(f"{key} {held.get(key)!r} instead of {expected[key]!r}" for key in other)
        raise ConfigError(f"{folder} holds another world ({listed}); choose another folder or remove it")
    return WorldPaths(root=folder)


def _check(size: WorldSize) -> None:
    for split in SPLIT_NAMES:
        if size.scenes(split) < 0:
            raise ConfigError(f"{split}_scenes is {size.scenes(split)}; give 0 or more")
    if size.samples_per_shard < 1:
        raise ConfigError(f"samples_per_shard is {size.samples_per_shard}; give 1 or more")
    if unknown := set(size.image_folders) - set(SPLIT_NAMES):
        raise ConfigError(f"image_folders names {', '.join(sorted(unknown))}; choose from {', '.join(SPLIT_NAMES)}")


def _fill(paths: WorldPaths, size: WorldSize) -> None:
    paths.karpathy.parent.mkdir(parents=True)
    listed: list[DescribedScene] = []
    for split in SPLIT_NAMES:
        scenes = list(split_scenes(split, size.scenes(split), size.seed))
        _write_images(paths, split, scenes, size)
        if split != "train":
            _write_json(paths.captions(split), caption_json(scenes, domains=split == "nocaps"))
        if split in QUESTIONED:
            questions, answers = vqa_json(scenes)
            _write_json(paths.questions(split), questions)
            _write_json(paths.answers(split), answers)
        if split in size.image_folders and split != "nocaps":
            listed += scenes
    _write_json(paths.karpathy, karpathy_json(listed))


def _write_images(paths: WorldPaths, split: str, scenes: Iterable[DescribedScene], size: WorldSize) -> None:
    images = paths.images / split if split in size.image_folders else None
    if images is not None:
        images.mkdir(parents=True)
    writer = ShardWriter(paths.shards(split), samples_per_shard=size.samples_per_shard) if split in SHARDED else None
    for described in scenes:
        buffer = io.BytesIO()
        render(described.scene).save(buffer, "JPEG", quality=JPEG_QUALITY)
        if images is not None:
            (images / described.file_name).write_bytes(buffer.getvalue())
        if writer is not None:
            extra = {"captions": list(described.captions), "image_id": described.image_id}
            name = f"emoji-scenes:{size.seed}/{split}/{described.image_id}"
            writer.write(buffer.getvalue(), described.captions[0], size=(SCENE_SIZE, SCENE_SIZE), url=name, extra=extra)
    if writer is not None:
        writer.close()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
