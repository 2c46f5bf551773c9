"""The size of a world, which determines every byte of it, and the paths of its parts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blip2_train.data.emoji_scenes.concepts import SPRITES_FOLDER
from blip2_train.data.emoji_scenes.split_scenes import FIRST_IMAGE_ID, SPLIT_NAMES
from blip2_train.errors import ConfigError

WORLD_VERSION = 1
"""Version of the world; increased when the same arguments give another one."""
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


@dataclass(frozen=True, kw_only=True)
class WorldSize:
    """The arguments that determine every byte of a world, beside the packaged images."""

    seed: int = 1
    train_scenes: int = 24_000
    val_scenes: int = 512
    test_scenes: int = 512
    nocaps_scenes: int = 384
    samples_per_shard: int = 1000
    image_folders: tuple[str, ...] = ("val", "test", "nocaps")
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

    def check(self) -> None:
        """Refuse a size that no world can have.

        Raises:
            ConfigError: if a number is negative or too large, or a split unknown.
        """
        for split in SPLIT_NAMES:
            if self.scenes(split) < 0:
                raise ConfigError(f"{split}_scenes is {self.scenes(split)}; give 0 or more")
            if self.scenes(split) >= FIRST_IMAGE_ID:
                raise ConfigError(f"{split}_scenes is {self.scenes(split)}; at most {FIRST_IMAGE_ID - 1} fit")
        if self.samples_per_shard < 1:
            raise ConfigError(f"samples_per_shard is {self.samples_per_shard}; give 1 or more")
        if unknown := set(self.image_folders) - set(SPLIT_NAMES):
            raise ConfigError(f"image_folders names {', '.join(sorted(unknown))}; choose from {', '.join(SPLIT_NAMES)}")
