"""Reading a training stream from shards on an S3 server, without decoding images, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from s3_server import S3
from shard_files import write_tar

from blip2_train.data.shards.tar import scan_shard
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler
from blip2_train.data.stream.loader import BatchLoader, start_fork_server
from blip2_train.data.stream.stream import TrainingStream
from blip2_train.types import ImageTextSample

Read = tuple[str, int]
"""Id of a sample, and a number that stands for the content of its image."""


def write_numbered_shards(folder: Path, s3: S3, shards: int, samples: int, size: int = 300) -> None:
    """Shards with notes as `make_shards` leaves them, here and on the server as `set`; images are random bytes."""
    noise = np.random.default_rng(0)
    listed = []
    for shard in range(shards):
        path = folder / f"{shard:05d}.tar"
        keys = [f"{shard:04d}{number:05d}" for number in range(samples)]
        write_tar(path, [pair for key in keys for pair in ((f"{key}.jpg", noise.bytes(size)), (f"{key}.txt", key))])
        np.save(path.with_suffix(".index.npy"), scan_shard(path)[0])
        listed.append({"file": path.name, "samples": samples, "bytes": path.stat().st_size})
    (folder / "index.json").write_text(json.dumps({"shards": listed}))
    s3.upload(folder, "set")
    s3.requests.clear()


def read(
    path: str,
    index: Path,
    steps: int,
    *,
    batch: int,
    workers: int,
    first_step: int = 0,
    world: int = 1,
    rank: int = 0,
    seed: int = 3,
    window: int = 16384,
    block: int = 256,
    **options: object,
) -> Iterator[list[Read]]:
    """The batches of a process from a step on, as the training loader reads them."""
    source = ShardSource(path, "set", index, StorageOptions(first_pause=0.01, **options))  # type: ignore[arg-type]
    part = TrainingSource(source=source, weight=1.0, held_out=np.array([7, 40]))
    shape = BatchShape(global_batch_size=batch * world, world_size=world)
    stream = TrainingStream(
        [part],
        _unused,
        seed,
        shuffle_block=block,
        shuffle_window=window,
        read_image=_digest,
        schedule=GlobalBatchSampler(shape, rank, steps),
    )
    if workers:
        start_fork_server()
    sampler = GlobalBatchSampler(shape, rank, steps, first_step)
    yield from BatchLoader(stream, num_workers=workers, batch_sampler=sampler, collate_fn=_collate)  # type: ignore[misc]


def _unused(*_: object) -> torch.Tensor:
    raise AssertionError("images are not decoded here")


def _digest(content: bytes, *_: object) -> torch.Tensor:
    return torch.tensor(int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big"))


def _collate(samples: Sequence[ImageTextSample]) -> list[Read]:
    return [(sample.sample_id, int(sample.pixel_values)) for sample in samples]
