"""The model and the batches that a benchmark runs on.

Shape letters: B batch, P patches with the class token, Dv tower width, T text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from blip2_train.cli.benchmark.options import BenchmarkOptions
from blip2_train.cli.compose import instantiate
from blip2_train.models.configs import VisionConfig
from blip2_train.models.image_text import ImageTextModel
from blip2_train.types import ImageTextBatch


class GivenPatches(nn.Module):
    """Stands where the tower does when the batches already hold patch features `(B, P, Dv)`."""

    num_blocks = 0

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.width, self.patches = width, patches

    def forward(self, patch_features: Tensor) -> Tensor:
        """The features as they are."""
        return patch_features


def build_model(config: DictConfig, options: BenchmarkOptions) -> ImageTextModel:
    """The recipe's model with random weights, on torch's default device, in training mode."""
    vision: VisionConfig = instantiate(config.model.vision)
    if options.device == "cpu":
        vision = replace(vision, dtype="float32")
    if not options.vision:
        vision = replace(vision, overrides={**vision.overrides, "depth": vision.dropped_blocks + 1})
    model = ImageTextModel(vision, instantiate(config.model.qformer), config.model.temperature)
    if not options.vision:
        tower = model.vision_model.tower
        patches = tower.patch_embed.num_patches + tower.num_prefix_tokens
        model.vision_model = GivenPatches(model.vision_model.width, patches)  # type: ignore[assignment]
    return model.train()


def picture_shape(model: ImageTextModel) -> tuple[int, ...]:
    """Shape of one sample's `pixel_values`: a picture, or patch features where those are given."""
    if isinstance(model.vision_model, GivenPatches):
        return (model.vision_model.patches, model.vision_model.width)
    size = model.vision_config.image_size
    return (3, size, size)


def synthetic_batch(
    model: ImageTextModel, options: BenchmarkOptions, max_text_length: int, generator: torch.Generator | None
) -> ImageTextBatch:
    """Random pictures and captions on the CPU; one caption has the most tokens that are allowed."""
    fewest, most = options.tokens
    size, vocabulary = options.batch_size, model.qformer_config.vocab_size
    lengths = torch.randint(fewest, most + 1, (size,), generator=generator)
    lengths[0] = most
    mask = torch.arange(max_text_length)[None, :] < lengths[:, None]
    ids = torch.randint(1, vocabulary - 1, (size, max_text_length), generator=generator) * mask
    return ImageTextBatch(
        pixel_values=torch.randn(size, *picture_shape(model), generator=generator),
        input_ids=ids,
        attention_mask=mask,
        image_ids=torch.arange(size),
        longest_text=most,
        sample_ids=tuple(f"synthetic/{row}" for row in range(size)),
        rejected=(),
    )


def batches(config: DictConfig, model: ImageTextModel, options: BenchmarkOptions) -> Iterator[ImageTextBatch]:
    """Batches on the CPU without end: random ones made anew each time, or those of the recipe's loader."""
    if options.loader:
        data: Any = instantiate(config.data)
        data.prepare_data()
        data.setup("fit")
        while True:
            yield from data.train_dataloader()
    generator = torch.Generator().manual_seed(0)
    while True:
        yield synthetic_batch(model, options, config.max_text_length, generator)
