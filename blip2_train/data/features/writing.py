"""Writes the features of one shard's images, in any process; the same images and tower give the same bytes."""

from __future__ import annotations

import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.transforms import EvalTransform, TrainTransform
from blip2_train.data.features.image_keys import CROPS, EVALUATION, ImageKey, image_key
from blip2_train.data.features.layout import FeatureLayout
from blip2_train.data.features.samples import Samples
from blip2_train.data.order import stable_seed
from blip2_train.data.prepare.destination import Destination, sha256_of
from blip2_train.data.prepare.packing import PackedShard
from blip2_train.data.record import Record
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.writer import shard_stem
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

_AHEAD = 64
"""Remote samples that are fetched at once."""
Encode = Callable[[Tensor], Tensor]
"""The tower: `(B, 3, H, W)` to `(B, P, Dv)`, on any device."""


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """How the crops of an image are made."""

    train: TrainTransform
    evaluation: EvalTransform
    crops: int
    seed: int

    def pixel_values(self, content: bytes, orientation: int | None, flags: int) -> list[Tensor]:
        """The crops `(3, H, W)` of an image, those of training first; raises `UnusableSample`."""
        key = image_key(content, orientation)
        made = []
        if flags & CROPS:
            made = [
                self.train.from_file(content, crop_generator(self.seed, key, crop), orientation)
                for crop in range(self.crops)
            ]
        if flags & EVALUATION:
            made.append(self.evaluation(decode_image(content, orientation=orientation), torch.Generator()))
        return made


def crop_generator(seed: int, key: ImageKey, crop: int) -> torch.Generator:
    """What draws a training crop of an image: the same in whichever set and order it comes."""
    return torch.Generator().manual_seed(stable_seed("features", seed, *key, crop))


@dataclass(frozen=True, kw_only=True)
class FeatureTask:
    """A shard to be written, or to be checked if it was finished before."""

    shard_index: int
    samples: NDArray[np.int64]
    """Indices of one sample of each image."""
    flags: NDArray[np.uint8]
    """What each image is needed for."""
    digests: NDArray[np.uint64]
    """`(N, 2)`: keys of the images."""
    finished: FeatureShard | None
    """The shard's entry from when it was finished; None if it was not."""


@dataclass(frozen=True, kw_only=True)
class FeatureShard(PackedShard):
    """A finished shard; `samples` counts its images."""

    crops: int
    """Files in the shard."""
    unreadable: tuple[tuple[int, RejectedSample], ...] = ()
    """Index, in the task, and record of each image that could not be read."""


class FeatureWriting:
    """Reads the images of a shard, computes their features in batches, and writes these.

    Args:
        samples: The samples.
        rule: How crops are made.
        layout: How features are stored.
        encode: The tower.
        batch_size: Crops at once.
        threads: Images that are read and decoded at once.
        folder: Where finished shards go.
        unfinished: Folder for incomplete shards, on the same disk.
    """

    def __init__(
        self,
        samples: Samples,
        rule: CropRule,
        layout: FeatureLayout,
        encode: Encode,
        *,
        batch_size: int,
        threads: int,
        folder: Path,
        unfinished: Path,
    ) -> None:
        self._samples, self._rule, self._layout, self._encode = samples, rule, layout, encode
        self._batch_size, self._threads = batch_size, threads
        self._destination, self._unfinished = Destination(folder), unfinished

    def __call__(self, task: FeatureTask) -> FeatureShard:
        """Write a shard, unless the finished one is unchanged.

        Raises:
            ShardError: if an image changed since it was listed, or the shard cannot be written.
        """
        known, path = task.finished, self._unfinished / f"{shard_stem(task.shard_index)}.tar"
        if known is not None and self._destination.holds(known.file, known.bytes, known.sha256):
            return known
        unreadable: list[tuple[int, RejectedSample]] = []
        count = 0
        with self._destination.writing(path):
            with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for name, features in self._features(task, unreadable):
                    _add(tar, name, self._layout.encode(features))
                    count += 1
            shard = FeatureShard(
                file=path.name,
                samples=len(task.samples) - len(unreadable),
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
                crops=count,
                unreadable=tuple(unreadable),
            )
            self._destination.put(path)
        return shard

    def _features(
        self, task: FeatureTask, unreadable: list[tuple[int, RejectedSample]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and features `(P, Dv)` of each crop, in order; images that cannot be read are added to `unreadable`."""
        waiting: list[tuple[str, Tensor]] = []
        for row, crops in enumerate(self._crops(task)):
            if isinstance(crops, UnusableSample):
                index = int(task.samples[row])
                unreadable += [(row, one) for _, one in self._samples.rejected(index, crops).rejected]
                continue
            names = [f"crop{crop}" for crop in range(self._rule.crops)] if task.flags[row] & CROPS else []
            names += ["evaluation"] if task.flags[row] & EVALUATION else []
            key = f"{shard_stem(task.shard_index)}{row:06d}"
            waiting += [(f"{key}.{name}.safetensors", crop) for name, crop in zip(names, crops, strict=True)]
            while len(waiting) >= self._batch_size:
                yield from self._encoded(waiting[: self._batch_size])
                waiting = waiting[self._batch_size :]
        if waiting:
            yield from self._encoded(waiting)

    def _encoded(self, batch: list[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        features = self._encode(torch.stack([crop for _, crop in batch]))
        yield from zip((name for name, _ in batch), features.unbind(), strict=True)

    def _crops(self, task: FeatureTask) -> Iterator[list[Tensor] | UnusableSample]:
        """The crops of each image, or why it cannot be read; a few images are made ready in advance."""
        ahead, left = 2 * max(self._threads, self._batch_size), iter(range(len(task.samples)))
        with ThreadPoolExecutor(self._threads) as pool:
            waiting = deque(pool.submit(self._crops_of, *self._read(task, row)) for row in islice(left, ahead))
            while waiting:
                yield waiting.popleft().result()
                waiting += [pool.submit(self._crops_of, *self._read(task, row)) for row in islice(left, 1)]

    def _read(self, task: FeatureTask, row: int) -> tuple[Record | UnusableSample, FeatureTask, int]:
        """The sample of an image, or why it cannot be read; by one thread, as sources are for one at a time."""
        if row % _AHEAD == 0:
            self._samples.read_ahead(task.samples[row : row + _AHEAD].tolist())
        try:
            return self._samples.read(int(task.samples[row])), task, row
        except UnusableSample as problem:
            return problem, task, row

    def _crops_of(self, record: Record | UnusableSample, task: FeatureTask, row: int) -> list[Tensor] | UnusableSample:
        if isinstance(record, UnusableSample):
            return record
        if image_key(record.image, record.orientation) != tuple(task.digests[row].tolist()):
            location = self._samples.location(int(task.samples[row]))
            raise ShardError(
                f"{location.file}: {location.key} changed while features were written; leave the images alone, and "
                "start again in an empty folder"
            )
        try:
            return self._rule.pixel_values(record.image, record.orientation, int(task.flags[row]))
        except UnusableSample as problem:
            return problem


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o444
    tar.addfile(member, io.BytesIO(content))
