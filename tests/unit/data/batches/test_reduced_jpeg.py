"""JPEGs that are decoded no larger than a crop needs: close to those decoded whole, and equal where that is needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from benchmark.loader.photographs import photographs
from PIL import Image
from shard_files import encode

from blip2_train.data.batches import reduced_jpeg
from blip2_train.data.batches.reduced_jpeg import Crop, reduced_crop
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, DRAFT_TOLERANCE, EXACT, FAST, TrainTransform
from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import ConfigError

SIDE = 48
Drawn = tuple[torch.Tensor, float]


def _image(size: tuple[int, int], seed: int = 1) -> Image.Image:
    return Image.open(io.BytesIO(next(photographs(size, 1, seed))))


def _transform(decoder: str, **options: Any) -> TrainTransform:
    return TrainTransform(SIDE, CLIP_MEAN, CLIP_STD, decoder=decoder, **options)


def _levels(content: bytes, decoder: str, seed: int, orientation: int | None = None, side: int = SIDE) -> Drawn:
    """Levels of a training image, and what its generator draws next."""
    generator = torch.Generator().manual_seed(seed)
    levels = TrainTransform(side, CLIP_MEAN, CLIP_STD, decoder=decoder).levels_from_file(
        content, generator, orientation
    )
    assert levels.shape == (3, side, side) and levels.dtype == torch.uint8 and levels.is_contiguous()
    return levels, float(torch.rand((), generator=generator))


def _kinds(size: tuple[int, int]) -> Iterator[bytes]:
    image = _image(size)
    yield encode(image, "JPEG", quality=85)
    yield encode(image, "JPEG", quality=90, progressive=True)
    yield encode(image, "JPEG", quality=95, subsampling=0)
    yield encode(image, "JPEG", quality=70, subsampling=1)
    yield encode(image.convert("L"), "JPEG", quality=85)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "side"), [((640, 480), 112), ((403, 299), 112), ((451, 640), 48), ((171, 257), 64), ((97, 500), 32)]
)
def test_the_same_crop_within_the_tolerance(size: tuple[int, int], side: int) -> None:
    differences = []
    for content in _kinds(size):
        for seed in range(4):
            (whole, after), (fast, fast_after) = (_levels(content, way, seed, side=side) for way in (EXACT, FAST))
            differences.append(float((whole.float() - fast.float()).abs().mean()))
            assert after == fast_after, "the same draws"
    assert max(differences) < 2 * DRAFT_TOLERANCE and sum(differences) / len(differences) < DRAFT_TOLERANCE


def test_images_that_are_not_decoded_smaller_differ_by_rounding() -> None:
    for size in ((90, 80), (49, 60), (30, 20), (8, 9)):
        for content in _kinds(size):
            difference = (_levels(content, EXACT, 0)[0].int() - _levels(content, FAST, 0)[0].int()).abs()
            assert difference.max() <= 1 and difference.float().mean() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("size", [(403, 299), (401, 303), (8, 600)])
def test_crops_at_the_edges(size: tuple[int, int]) -> None:
    width, height = size
    content = encode(_image(size), "JPEG")
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    wide, high = max(1, width // 2), max(1, height // 2)
    for crop in [
        (0, 0, height, width),
        (0, 0, 1, 1),
        (height - 1, width - 1, 1, 1),
        (height - high, width - wide, high, wide),
    ]:
        top, left, tall, broad = crop
        fast = reduced_crop(content, None, 16, lambda w, h, crop=crop: crop)
        assert fast is not None
        cut = whole.crop((left, top, left + broad, top + tall)).resize((16, 16), Image.Resampling.BICUBIC)
        exact = torch.tensor(list(cut.tobytes())).view(16, 16, 3).permute(2, 0, 1)
        assert (fast.float() - exact).abs().mean() < 2 * DRAFT_TOLERANCE, crop


def test_other_files_are_decoded_whole_and_equal_to_the_bit() -> None:
    image = _image((240, 180))
    turned, upright = Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112] = 6, 1
    jpeg = encode(image, "JPEG")
    same: list[tuple[bytes, int | None]] = [
        (encode(image, "PNG"), None),
        (encode(image.convert("CMYK"), "JPEG"), None),
        (encode(image, "JPEG", exif=turned), None),
        (encode(image, "JPEG", exif=turned), 1),
        (jpeg, 6),
    ]
    for content, orientation in same:
        exact, fast = (_levels(content, decoder, 5, orientation) for decoder in (EXACT, FAST))
        assert torch.equal(exact[0], fast[0]) and exact[1] == fast[1]
    for content, orientation in [(jpeg, None), (jpeg, 1), (jpeg, 99), (encode(image, "JPEG", exif=upright), 6)]:
        exact, fast = (_levels(content, decoder, 5, orientation) for decoder in (EXACT, FAST))
        assert not torch.equal(exact[0], fast[0]) and exact[1] == fast[1]


def test_what_is_broken_fails_as_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = encode(_image((240, 180)), "JPEG")
    for broken in (jpeg[:-2000], jpeg[:700], jpeg[:20], b"", b"text"):
        failures = []
        for decoder in (EXACT, FAST):
            with pytest.raises(UnusableSample) as failure:
                _levels(broken, decoder, 0)
            failures.append((failure.value.reason, failure.value.detail))
        assert failures[0] == failures[1]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(UnusableSample, match="image too large"):
        _levels(jpeg, FAST, 0)


@pytest.mark.slow
def test_both_ways_to_the_decoder_give_the_same_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reduced_jpeg.simplejpeg is not None
    jpeg = encode(_image((403, 299)), "JPEG")
    files = [
        *_kinds((403, 299)),
        *_kinds((90, 71)),
        *_kinds((801, 603)),
        jpeg + bytes(50),
        jpeg[:2] + b"\xff\xff" + jpeg[2:],
    ]
    ours = [_levels(content, FAST, seed)[0] for seed, content in enumerate(files)]
    monkeypatch.setattr(reduced_jpeg, "simplejpeg", None)
    for seed, content in enumerate(files):
        assert torch.equal(ours[seed], _levels(content, FAST, seed)[0])


def test_the_crop_is_requested_once_and_only_for_what_is_decoded_here() -> None:
    requested: list[tuple[int, int]] = []

    def choose(width: int, height: int) -> Crop:
        requested.append((width, height))
        return 0, 0, height, width

    jpeg = encode(_image((120, 90)), "JPEG")
    assert reduced_crop(jpeg, None, 16, choose) is not None and requested == [(120, 90)]
    assert reduced_crop(encode(_image((120, 90)), "PNG"), None, 16, choose) is None
    assert reduced_crop(jpeg, 3, 16, choose) is None and len(requested) == 1


def test_flips_and_unknown_decoders() -> None:
    jpeg = encode(_image((240, 180)), "JPEG")
    straight, flipped = (
        _transform(FAST, flip=flip).levels_from_file(jpeg, torch.Generator().manual_seed(0)) for flip in (0.0, 1.0)
    )
    assert torch.equal(straight.flip(-1), flipped) and not torch.equal(straight, flipped)
    assert _transform(FAST, draft=True).decoder == EXACT, "draft is a way of its own"
    with pytest.raises(ConfigError, match="decoder is exact or fast, got 'quick'"):
        _transform("quick")
