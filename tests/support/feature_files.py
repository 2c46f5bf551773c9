"""Stored features of small images by a tower of one matrix product, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from shard_files import encode, write_tar
from torch import Tensor

from blip2_train.data.features.preparation import Amount, FeaturePreparation
from blip2_train.data.features.samples import Samples
from blip2_train.data.features.settings import FeatureSettings
from blip2_train.data.prepare.engine import Engine, LocalEngine
from blip2_train.training.data_module import ImageTextDataModule

PATCHES, WIDTH = 4, 6


class SmallTower:
    """Features `(B, 4, 6)` of images of 16 pixels, one patch for each quarter; counts the crops that it was given."""

    def __init__(self, scale: float = 1.0) -> None:
        self.weight = torch.randn(192, WIDTH, generator=torch.Generator().manual_seed(5)) * scale
        self.crops = 0

    def __call__(self, pixel_values: Tensor) -> Tensor:
        self.crops += len(pixel_values)
        quarters = pixel_values.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
        return torch.stack([quarter @ self.weight for quarter in quarters])  # one by one: no rounding by batch size


def noise(seed: int) -> bytes:
    """A JPEG of coarse random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels).resize((36, 30)), "JPEG", quality=95)


def write_noise_shards(folder: Path, sizes: Iterable[int], first: int = 0) -> Path:
    """Shards whose images are all different, with captions."""
    for shard, size in enumerate(sizes):
        members: list[tuple[str, Any]] = []
        for number in range(size):
            key = f"{shard:05d}{number:04d}"
            members += [
                (f"{key}.jpg", noise(1000 * (first + shard) + number)),
                (f"{key}.txt", f"a cat {'abc'[number % 3]}"),
            ]
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder


def preparation(data: ImageTextDataModule, folder: Path, encode: Any, **changes: Any) -> FeaturePreparation:
    """What stores the features of everything that a data module reads; 2 crops of 32 bits unless changed."""
    samples = Samples(data.image_sets())
    chosen: dict[str, Any] = {"crops": 2, "bits": 32, "images_per_shard": 4, "dtype": "float32", "sha256": "5" * 64}
    chosen |= changes
    rule, transform = data.crop_rule(chosen["crops"])
    settings = FeatureSettings(
        tower={"name": "small", "dropped_blocks": 1, "overrides": {}, "family": None, "dtype": chosen["dtype"]},
        tower_sha256=chosen["sha256"],
        transform=transform,
        crops=chosen["crops"],
        bits=chosen["bits"],
        seed=rule.seed,
        patches=PATCHES,
        width=WIDTH,
        images_per_shard=chosen["images_per_shard"],
        pillow=PIL.__version__,
        sources=samples.fingerprints(),
    )
    return FeaturePreparation(
        samples=samples, folder=folder, settings=settings, rule=rule, encode=encode, batch_size=3, threads=2
    )


def write_features(data: ImageTextDataModule, folder: Path, encode: Any = None, **changes: Any) -> dict[str, Any]:
    """Store the features of everything that a data module reads; returns the index."""
    engine: Engine = changes.pop("engine", LocalEngine(1))
    amounts: list[Amount] = changes.pop("amounts", [])
    prepared = preparation(data, folder, encode or SmallTower(), **changes)
    return prepared.run(engine, engine, lambda *_: None, amounts.append)
