"""Random texts and prompts for a language model.

Shape letters: B batch, S tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.huggingface import image_token
from benchmark.text_generation import PromptBatch
from benchmark.workload import random_images
from blip2_train.models.generative import GenerativeModel

_FIRST_WORD = 4
"""Ids below it are special in most vocabularies."""


def random_ids(model: GenerativeModel, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids `(B, longest)`, int64, padded on the right, and mask, bool, True = real."""
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    ids = torch.randint(_FIRST_WORD, image_token(model), tuple(mask.shape), generator=generator)
    return ids.masked_fill(~mask, model.language_model.config.pad_token_id or 0), mask


def random_prompts(model: GenerativeModel, lengths: Tensor, generator: torch.Generator) -> PromptBatch:
    """Random images, and prompts of these lengths, on the CPU."""
    ids, mask = random_ids(model, lengths, generator)
    count = len(lengths)
    return PromptBatch(
        pixel_values=random_images(model, count, generator),
        image_ids=torch.arange(count),
        sample_ids=tuple(f"synthetic/{row}" for row in range(count)),
        rejected=(),
        input_ids=ids.flip(1),
        attention_mask=mask.flip(1),
    )
