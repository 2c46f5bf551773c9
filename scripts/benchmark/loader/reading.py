"""The project's own way from shards to batches, as every measurement of reading uses it."""

from __future__ import annotations

from importlib import resources
from typing import Any

from benchmark.loader.options import LoaderOptions
from blip2_train.data.batches.collate import load_image_text_collator
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.sources.config import SourceConfig
from blip2_train.training.data_module import ImageTextDataModule

_TEXT_LENGTH = 32
"""Tokens per text."""


def open_data(source: SourceConfig, options: LoaderOptions, steps: int, **settings: Any) -> ImageTextDataModule:
    """A data module that is ready, with the tokenizer that ships with the project, and nothing held out."""
    tokenizer = str(resources.files("blip2_train") / "assets" / "demo" / "bert")
    given: dict[str, Any] = {
        "sources": [source],
        "collator": load_image_text_collator(tokenizer=tokenizer, max_text_length=_TEXT_LENGTH),
        "image_size": options.image_size,
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "global_batch_size": options.batch_size,
        "steps": steps,
        "seed": 0,
        "num_workers": 0,
        "holdout": 0,
    }
    data = ImageTextDataModule(**(given | settings))
    data.setup("fit")
    return data
