"""Random models and batches of a few thousand parameters, for tests."""

from __future__ import annotations

from typing import Any

import torch

from blip2_train.models.configs import QFormerConfig, VisionConfig
from blip2_train.models.image_text import ImageTextModel
from blip2_train.types import ImageTextBatch

VOCABULARY = 60


def vision_config(**changes: Any) -> VisionConfig:
    """A vision transformer of 2 + 1 blocks for images of 32 pixels: 16 patches and a class token, 24 wide."""
    options: dict[str, Any] = {
        "name": "vit_tiny_patch16_224",
        "weights": "random",
        "image_size": 32,
        "overrides": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2},
    }
    return VisionConfig(**(options | changes))


def qformer_config(**changes: Any) -> QFormerConfig:
    """Three layers of 16, four queries, no dropout."""
    options: dict[str, Any] = {
        "weights": "random",
        "hidden_size": 16,
        "num_layers": 3,
        "num_heads": 2,
        "intermediate_size": 32,
        "num_queries": 4,
        "vocab_size": VOCABULARY,
        "max_positions": 40,
        "feature_size": 8,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    return QFormerConfig(**(options | changes))


def image_text_model(seed: int = 0, vision: dict[str, Any] | None = None, **qformer: Any) -> ImageTextModel:
    """A stage-1 model with random weights, large enough that nothing vanishes."""
    torch.manual_seed(seed)
    model = ImageTextModel(vision_config(**(vision or {})), qformer_config(**qformer))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(8.0)
    return model


def image_text_batch(size: int = 5, seed: int = 0, length: int = 12, image_size: int = 32) -> ImageTextBatch:
    """Random images and texts of 3 to 9 tokens, padded to `length`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 10, (size,), generator=generator)
    mask = torch.arange(length)[None] < lengths[:, None]
    ids = torch.randint(5, VOCABULARY - 1, (size, length), generator=generator) * mask
    ids[:, 0] = 2
    return ImageTextBatch(
        pixel_values=torch.randn(size, 3, image_size, image_size, generator=generator),
        input_ids=ids,
        attention_mask=mask,
        image_ids=torch.arange(size) + 1000 * seed,
        longest_text=int(lengths.max()),
        sample_ids=tuple(f"{seed}/{i}" for i in range(size)),
        rejected=(),
    )
