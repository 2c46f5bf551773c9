"""The parts of a world that can be written at the same time: the images of a split, or of one of its shards."""

from __future__ import annotations

import io
from dataclasses import dataclass

from blip2_train.data.emoji_scenes.layout import SHARDED, WorldPaths, WorldSize
from blip2_train.data.emoji_scenes.official_files import image_file_name
from blip2_train.data.emoji_scenes.render import render
from blip2_train.data.emoji_scenes.scenes import SCENE_SIZE, Scene
from blip2_train.data.emoji_scenes.split_scenes import SPLIT_NAMES, DrawnScene, captions_of, drawn_scenes
from blip2_train.data.shards.writer import ShardWriter

JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldPart:
    """Scenes `first` … `end - 1` of a split."""

    split: str
    first: int
    end: int

    @property
    def scenes(self) -> int:
        """Number of its scenes."""
        return self.end - self.first


def world_parts(size: WorldSize) -> list[WorldPart]:
    """The parts of a world in order: each shard of `train`, and the other splits as a whole."""
    parts = []
    for split in SPLIT_NAMES:
        count = size.scenes(split)
        step = size.samples_per_shard if split == "train" else count
        for first in range(0, count, step) if count > 0 else (0,):
            parts.append(WorldPart(split=split, first=first, end=min(first + step, count)))
    return parts


def scene_jpeg(scene: Scene) -> bytes:
    """The file of a scene's image."""
    buffer = io.BytesIO()
    render(scene).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def write_part(paths: WorldPaths, size: WorldSize, part: WorldPart) -> list[tuple[DrawnScene, tuple[str, ...]]]:
    """Write the images of a part, into shards and files; returns its scenes with their captions."""
    split = part.split
    images = paths.images / split if split in size.image_folders else None
    if images is not None:
        images.mkdir(parents=True, exist_ok=True)
    writer = None
    if split in SHARDED:
        folder, each = paths.shards(split), size.samples_per_shard
        writer = ShardWriter(folder, samples_per_shard=each, first_shard=part.first // each)
    written = []
    for drawn in drawn_scenes(split, part.end, size.seed, part.first):
        captions, content = captions_of(drawn), scene_jpeg(drawn.scene)
        if images is not None:
            (images / image_file_name(split, drawn.image_id)).write_bytes(content)
        if writer is not None:
            extra = {"captions": list(captions), "image_id": drawn.image_id}
            url = f"emoji-scenes:{size.seed}/{split}/{drawn.image_id}"
            writer.write(content, captions[0], size=(SCENE_SIZE, SCENE_SIZE), url=url, extra=extra)
        written.append((drawn, captions))
    if writer is not None:
        writer.close()
    return written
