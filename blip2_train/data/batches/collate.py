"""Collates samples to a stage-1 batch, with tokenised texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

import torch

from blip2_train.data.batches.qformer_tokenizer import load_text_tokenizer
from blip2_train.data.fingerprint import Fingerprint, tokenizer_fingerprint
from blip2_train.errors import ConfigError
from blip2_train.types import Batch, ImageTextBatch, ImageTextSample, TextTokenizer


class ImageTextCollator:
    """Stacks samples, and tokenises their captions to a fixed length; runs in the loader's workers.

    Args:
        tokenizer: tokenizer of the Q-Former's text side.
        max_text_length: tokens per text with `[CLS]` and `[SEP]`; longer texts are cut on the right, `[SEP]` stays.

    Raises:
        ConfigError: if there is no room for a token beside the two special ones.
    """

    batch_type: ClassVar[type[Batch]] = ImageTextBatch

    def __init__(self, tokenizer: TextTokenizer, max_text_length: int = 32) -> None:
        if max_text_length < 3:
            raise ConfigError(f"max_text_length must be at least 3 ([CLS], one token, [SEP]), got {max_text_length}")
        self.tokenizer = tokenizer
        self.max_text_length = max_text_length

    def fingerprint(self) -> Fingerprint:
        """Values that must be equal for a run to resume."""
        return {"max_text_length": self.max_text_length, **tokenizer_fingerprint(self.tokenizer)}

    def __call__(self, samples: Sequence[ImageTextSample]) -> ImageTextBatch:
        """Make a batch of B samples with texts of `max_text_length` tokens."""
        texts = self.tokenizer(
            [sample.caption for sample in samples],
            padding="max_length",
            truncation=True,
            max_length=self.max_text_length,
            return_tensors="pt",
        )
        mask = texts["attention_mask"].bool()
        return ImageTextBatch(
            pixel_values=torch.stack([sample.pixel_values for sample in samples]),
            input_ids=texts["input_ids"],
            attention_mask=mask,
            image_ids=torch.tensor([sample.image_id for sample in samples], dtype=torch.int64),
            longest_text=int(mask.sum(dim=1).max()),
            sample_ids=tuple(sample.sample_id for sample in samples),
            rejected=tuple(chain.from_iterable(sample.rejected for sample in samples)),
        )


def load_image_text_collator(*, tokenizer: str, max_text_length: int) -> ImageTextCollator:
    """An `ImageTextCollator` with the Q-Former's tokenizer of a folder or hub id."""
    return ImageTextCollator(load_text_tokenizer(tokenizer), max_text_length)
