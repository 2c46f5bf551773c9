"""Scenes as a source of data: read from shards if those are written, else drawn when they are read.

A scene is a function of the world's size and its index, so any number of processes and readers draw the same ones
without knowing of each other, and nothing has to be stored.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from blip2_train.data.emoji_scenes.layout import SHARDED, WorldSize
from blip2_train.data.emoji_scenes.parts import scene_jpeg
from blip2_train.data.emoji_scenes.split_scenes import SPLIT_NAMES, DrawnScene, captions_of, drawn_scenes
from blip2_train.data.emoji_scenes.world import ensure_world, is_written, refuse_other_world
from blip2_train.data.order import stable_seed
from blip2_train.data.printable_names import names_digest, printable_name
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.shards.writer import sample_key, shard_stem
from blip2_train.data.sources.config import SourceConfig
from blip2_train.errors import ConfigError
from blip2_train.system.atomic_write import write_atomically
from blip2_train.system.records import read_record
from blip2_train.types import RejectedSample

logger = logging.getLogger(__name__)

_FEW = 1 / 8
"""Share of the training scenes up to which drawing those that are read costs less than writing all."""
_SAMPLE_BYTES = 5_600
"""Mean size of a sample in a shard."""


@dataclass(frozen=True, kw_only=True)
class SceneSourceConfig(SourceConfig):
    """The shards of a split of the world, `<world>/shards/<split>`, whether they are written or not."""

    @property
    def reads_shards(self) -> bool:
        """Whether the samples are those of the shards at `path`: always."""
        return True

    def own_source(self) -> SceneSource | None:
        """The scenes that are drawn when they are read; None if the shards are written."""
        shards = Path(str(self.path))
        marker = _marker(shards.parent.parent)
        if shards.exists() or shards.name not in SHARDED or not marker.is_file():
            return None
        size = read_record(marker, WorldSize, "remove it", ConfigError)
        return SceneSource(shards, self.title, size) if size.scenes(shards.name) else None


def prepare_scenes(
    folder: Path | str,
    *,
    steps: int,
    global_batch_size: int,
    access: str = "random",
    whole: bool = False,
    seed: int = WorldSize.seed,
    train_scenes: int = WorldSize.train_scenes,
    val_scenes: int = WorldSize.val_scenes,
    test_scenes: int = WorldSize.test_scenes,
    nocaps_scenes: int = WorldSize.nocaps_scenes,
    samples_per_shard: int = WorldSize.samples_per_shard,
    image_folders: Sequence[str] = WorldSize.image_folders,
) -> None:
    """Write the world if a run reads much of it; else note its size, by which scenes are drawn when they are read.

    Args:
        folder: folder of the world.
        steps: optimiser steps of the run.
        global_batch_size: samples per step.
        access: how the data module reads shards; those that are read one after the other have to be written.
        whole: write the world in any case, as the run reads more than images with captions.
        seed: see `write_world`, as all others.

    Raises:
        ConfigError: as `ensure_world`, also if a world of other arguments is drawn at this folder.
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
    folder, samples = Path(folder), steps * global_batch_size
    if whole or access != "random" or is_written(folder) or samples > train_scenes * _FEW:
        ensure_world(folder, **asdict(size))
        return
    size.check()
    logger.info("the run reads %d of %d emoji scenes: drawing them then", samples, train_scenes)
    marker = _marker(folder)
    if marker.is_file():
        held = read_record(marker, WorldSize, "remove it", ConfigError)
        refuse_other_world(marker, asdict(held), asdict(size))
    else:
        write_atomically(marker, json.dumps(asdict(size)) + "\n")


def _marker(folder: Path) -> Path:
    """The file beside a world's folder that holds the size of a world that is not written."""
    return folder.with_name(f".{folder.name}.size.json")


class SceneSource:
    """Scenes of a split, drawn when they are read; the samples of its shards, to the bit.

    Args:
        shards: folder in which the shards would be; its name is the split.
        name: name of the source in plans and records.
        size: size of the world.
    """

    rejected: tuple[RejectedSample, ...] = ()

    def __init__(self, shards: Path, name: str, size: WorldSize) -> None:
        self.name, self._shards, self._size = name, shards, size
        self._split, self._count = shards.name, size.scenes(shards.name)
        self.files = -(-self._count // size.samples_per_shard)
        self.size = self._count * _SAMPLE_BYTES

    def __len__(self) -> int:
        return self._count

    def sample_location(self, index: int) -> SampleLocation:
        """Location of scene `index` in the shards."""
        shard, row = divmod(index, self._size.samples_per_shard)
        file = printable_name(str(self._shards / f"{shard_stem(shard)}.tar"))
        return SampleLocation(file, shard_stem(shard), sample_key(shard, row, self._size.samples_per_shard))

    def read(self, index: int) -> Record:
        """Draw scene `index`."""
        return self._record(index, lambda drawn: scene_jpeg(drawn.scene))

    def read_texts(self, index: int) -> Record:
        """Scene `index` without its image."""
        return self._record(index, lambda drawn: b"")

    def _record(self, index: int, image: Callable[[DrawnScene], bytes]) -> Record:
        drawn = _drawn(self._split, self._count, self._size.seed, index)
        image_id = stable_seed(self.name, drawn.image_id)  # as `shard_record` makes it
        return Record(image=image(drawn), captions=captions_of(drawn), image_id=image_id)

    def fingerprint(self) -> str:
        """That of the shards."""
        each = self._size.samples_per_shard
        counts = (min(each, self._count - shard * each) for shard in range(self.files))
        return names_digest(f"{shard_stem(shard)}:{count}" for shard, count in enumerate(counts))

    def contents(self) -> dict[str, str]:
        """A hash that changes when the same indices are other scenes; that of a written world has another name."""
        return {"scenes": self._scenes}

    @cached_property
    def _scenes(self) -> str:
        """Hash of all that the scenes depend on, without the sizes of other splits."""
        others = {f"{split}_scenes" for split in SPLIT_NAMES} - {f"{self._split}_scenes"}
        known = {name: value for name, value in self._size.fingerprint().items() if name not in others}
        known.pop("image_folders")
        return hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=8).hexdigest()


def _drawn(split: str, count: int, seed: int, index: int) -> DrawnScene:
    """Scene `index` of a split, with a generator of its own."""
    if split == "train":
        return next(drawn_scenes(split, index + 1, seed, first=index))
    return copy.deepcopy(_held_out_scenes(split, count, seed)[index])


@lru_cache(maxsize=4)
def _held_out_scenes(split: str, count: int, seed: int) -> list[DrawnScene]:
    """All scenes of a split without repetitions, each of which depends on those before."""
    return list(drawn_scenes(split, count, seed))
