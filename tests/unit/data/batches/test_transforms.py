"""Crops, flips and normalisation, also of JPEGs that are decoded no larger than a crop needs."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from benchmark.loader.photographs import photographs
from PIL import Image
from shard_files import encode
from torchvision.transforms import InterpolationMode, v2

from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, DRAFT_TOLERANCE, EvalTransform, TrainTransform
from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import ConfigError


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_evaluation_resizes_to_a_square_without_keeping_the_ratio() -> None:
    image = _noise(90, 40)
    reference = v2.Compose(
        [
            v2.Resize((32, 32), InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    assert torch.equal(EvalTransform(32, CLIP_MEAN, CLIP_STD)(image, _generator(0)), reference(image))


def test_training_is_a_function_of_the_generator_alone() -> None:
    transform, image = TrainTransform(16, CLIP_MEAN, CLIP_STD), _noise(50, 40)
    torch.manual_seed(1)
    first = transform(image, _generator(5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(transform(image, _generator(5)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(transform(image, _generator(6)), first)
    assert first.shape == (3, 16, 16) and first.dtype == torch.float32


def test_crops_have_the_requested_area_ratio_and_spread() -> None:
    transform, generator = TrainTransform(16, CLIP_MEAN, CLIP_STD), _generator(0)
    crops = [transform._crop(400, 300, generator) for _ in range(2000)]
    top, left, height, width = (np.array(column) for column in zip(*crops, strict=True))
    area, ratio = height * width / 120_000, width / height
    assert 0.495 < area.min() < 0.52 and 0.97 < area.max() <= 1
    assert ratio.min() > 0.74 and ratio.max() < 1.345
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    theirs, image = v2.RandomResizedCrop(16, scale=(0.5, 1.0)), Image.new("RGB", (400, 300))
    reference = [theirs.make_params([image]) for _ in range(2000)]
    for mine, name in ((top, "top"), (left, "left"), (height, "height"), (width, "width")):
        values = np.array([params[name] for params in reference])
        spread = (values.var() / 2000 * 2) ** 0.5
        assert abs(mine.mean() - values.mean()) < 4 * spread


def test_crop_and_resize_equal_torchvisions() -> None:
    image, transform = _noise(64, 48), TrainTransform(16, CLIP_MEAN, CLIP_STD, flip=0.0)
    crop = transform._crop(64, 48, _generator(3))
    resized = v2.functional.resized_crop(image, *crop, [16, 16], InterpolationMode.BICUBIC)
    pixels = v2.functional.to_dtype(v2.functional.to_image(resized), torch.float32, scale=True)
    expected = v2.functional.normalize(pixels, list(CLIP_MEAN), list(CLIP_STD))
    assert torch.equal(transform(image, _generator(3)), expected)


def test_flips() -> None:
    image = _noise(20, 20)
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    straight = TrainTransform(20, CLIP_MEAN, CLIP_STD, **whole, flip=0.0)(image, _generator(0))
    assert torch.equal(
        TrainTransform(20, CLIP_MEAN, CLIP_STD, **whole, flip=1.0)(image, _generator(0)), straight.flip(-1)
    )
    generator, transform = _generator(1), TrainTransform(20, CLIP_MEAN, CLIP_STD, **whole)
    flips = sum(not torch.equal(transform(image, generator), straight) for _ in range(400))
    assert abs(flips - 200) < 4 * 10


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_odd_shapes(size: tuple[int, int]) -> None:
    for seed in range(20):
        assert TrainTransform(8, CLIP_MEAN, CLIP_STD)(_noise(*size), _generator(seed)).shape == (3, 8, 8)
    assert EvalTransform(8, CLIP_MEAN, CLIP_STD)(_noise(*size), _generator(0)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"crop_scale": (0.0, 1.0)}, {"crop_scale": (0.9, 0.5)}, {"crop_ratio": (2.0, 1.0)},
     {"flip": 1.5}, {"std": (1.0, 0.0, 1.0)}, {"mean": (0.5,)}],
)  # fmt: skip
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainTransform(**({"image_size": 8, "mean": CLIP_MEAN, "std": CLIP_STD} | wrong))


SIDE = 48


def _pixels(content: bytes, seed: int, **options: object) -> torch.Tensor:
    return TrainTransform(SIDE, CLIP_MEAN, CLIP_STD, **options).from_file(content, torch.Generator().manual_seed(seed))


def _levels(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean difference in levels of 255."""
    return float(((one - other).abs() * torch.tensor(CLIP_STD)[:, None, None]).mean() * 255)


@pytest.mark.slow
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
