"""Normalising a batch on its device gives the bits of normalising each image."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import image_text_batch
from torchvision.transforms import v2

from blip2_train.data.batches.normalisation import Normalisation
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import ConfigError


def test_every_level_as_torchvision_and_for_any_number_of_images() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    expected = v2.functional.normalize(v2.functional.to_dtype(levels, torch.float32, scale=True), CLIP_MEAN, CLIP_STD)
    normalise = Normalisation(CLIP_MEAN, CLIP_STD)
    assert torch.equal(normalise(levels), expected)
    batch = levels[None].repeat(5, 1, 1, 1)
    assert torch.equal(normalise(batch), expected.expand(5, -1, -1, -1)) and batch.dtype == torch.uint8


def test_a_batch_is_normalised_once() -> None:
    normalise = Normalisation((0.5,) * 3, (0.25,) * 3)
    levels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    batch = dataclasses.replace(image_text_batch(size=4), pixel_values=levels)
    done = normalise.batch(batch)
    assert torch.equal(done.pixel_values, normalise(levels)) and done.sample_ids == batch.sample_ids
    assert normalise.batch(done) is done


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="std positive"):
        Normalisation((0.5,) * 3, (0.0,) * 3)
