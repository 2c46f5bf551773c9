"""Decoding JPEGs no larger than a crop needs gives the same crop."""

from __future__ import annotations

import io

import pytest
import torch
from benchmark.loader.photographs import photographs
from PIL import Image
from shard_files import encode

from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, DRAFT_TOLERANCE, TrainTransform
from blip2_train.data.sources.rejections import UnusableSample

SIDE = 48


def _pixels(content: bytes, seed: int, **options: object) -> torch.Tensor:
    return TrainTransform(SIDE, CLIP_MEAN, CLIP_STD, **options).from_file(content, torch.Generator().manual_seed(seed))


def _levels(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean difference in levels of 255."""
    return float(((one - other).abs() * torch.tensor(CLIP_STD)[:, None, None]).mean() * 255)


@pytest.mark.parametrize("size", [(240, 180), (171, 257), (640, 480)])
def test_the_same_crop_within_the_tolerance(size: tuple[int, int]) -> None:
    for seed, content in enumerate(photographs(size, 6, seed=1)):
        whole, drafted = _pixels(content, seed), _pixels(content, seed, draft=True)
        assert not torch.equal(whole, drafted), "decoded smaller"
        assert _levels(whole, drafted) < DRAFT_TOLERANCE
        assert _levels(whole, _pixels(content, seed + 100)) > 4 * DRAFT_TOLERANCE, "another crop is far away"


def test_what_is_decoded_is_smaller_but_never_smaller_than_the_result() -> None:
    content = next(photographs((403, 299), 1, seed=2))
    assert decode_image(content, lambda width, height: 2).size == (202, 150)
    sizes = []
    decode_image(content, lambda width, height: sizes.append((width, height)) or 1)
    assert sizes == [(403, 299)]
    small = next(photographs((90, 80), 1, seed=2))
    for seed in range(5):
        assert torch.equal(_pixels(small, seed), _pixels(small, seed, draft=True)), "a crop below twice the result"


def test_what_cannot_be_decoded_smaller_is_decoded_whole() -> None:
    image = Image.open(io.BytesIO(next(photographs((240, 180), 1, seed=3))))
    turned = Image.Exif()
    turned[0x0112] = 6
    for content in (
        encode(image, "PNG"),
        encode(image, "JPEG", exif=turned),
        encode(image.convert("CMYK"), "JPEG"),
    ):
        for seed in range(3):
            assert torch.equal(_pixels(content, seed), _pixels(content, seed, draft=True))
    with pytest.raises(UnusableSample, match="unreadable image"):
        _pixels(encode(image, "JPEG")[:-2000], 0, draft=True)
