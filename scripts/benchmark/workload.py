"""Batches to measure on, and a model whose vision tower may be left out.

Shape letters: B batch, P patches with prefix tokens, Dv tower width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from benchmark.options import BenchmarkOptions
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import VisionConfig
from blip2_train.types import Batch

POOL = 4
"""Random batches, used in turn."""
MakeBatch = Callable[[torch.Generator], Batch]


class GivenPatches(nn.Module):
    """Stands where the tower does when the batches already hold patch features `(B, P, Dv)`."""

    num_blocks = 0

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.width, self.patches = width, patches

    def forward(self, patch_features: Tensor) -> Tensor:
        """The features as they are."""
        return patch_features


def tower_config(config: DictConfig, options: BenchmarkOptions) -> VisionConfig:
    """The recipe's tower, without all of its blocks but one if it is to be left out."""
    vision: VisionConfig = replace(instantiate(config.model.vision), weights="random")
    if options.device == "cpu":
        vision = replace(vision, dtype="float32")
    if not options.vision:
        vision = replace(vision, overrides={**(vision.overrides or {}), "depth": vision.dropped_blocks + 1})
    return vision


def leave_tower_out(model: Blip2Model) -> None:
    """Replace the tower by `GivenPatches`."""
    tower = model.vision_model.tower
    patches = tower.patch_embed.num_patches + tower.num_prefix_tokens
    model.vision_model = GivenPatches(model.vision_model.width, patches)  # type: ignore[assignment]


def random_images(model: Blip2Model, count: int, generator: torch.Generator) -> Tensor:
    """`pixel_values` `(B, 3, H, W)`, or patch features `(B, P, Dv)` where those are given."""
    if isinstance(model.vision_model, GivenPatches):
        patches, width = model.vision_model.patches, model.vision_model.width
        own = torch.randn(count, 1, width, generator=generator)  # else the means of all images were nearly equal
        return own + torch.randn(count, patches, width, generator=generator)
    size = model.vision_config.image_size
    return torch.randn(count, 3, size, size, generator=generator)


def random_lengths(options: BenchmarkOptions, generator: torch.Generator) -> Tensor:
    """Real tokens `(B,)` of each caption; the first has the most."""
    fewest, most = options.tokens
    lengths = torch.randint(fewest, most + 1, (options.batch_size,), generator=generator)
    lengths[0] = most
    return lengths


def batch_source(config: DictConfig, options: BenchmarkOptions, make: MakeBatch) -> Callable[[], Iterator[Batch]]:
    """What gives a plan its batches on the CPU, without end.

    Random batches are made beforehand, and every plan gets the same ones. The recipe's loader is one for all plans.
    """
    if options.loader:
        loaded = _loaded(config)
        return lambda: loaded
    generator = torch.Generator().manual_seed(0)
    pool = [make(generator) for _ in range(POOL)]
    return lambda: cycle(pool)


def _loaded(config: DictConfig) -> Iterator[Batch]:
    data = make_data(config)
    data.prepare_data()
    data.setup("fit")
    while True:
        yield from data.train_dataloader()
