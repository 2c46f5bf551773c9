"""Images as they come from the web, all decoded to upright RGB."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from shard_files import encode, image

from blip2_train.data.batches.images import decode_image
from blip2_train.data.rejections import UnusableSample


def _corner(data: bytes) -> tuple[int, int, int]:
    image = decode_image(data)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def test_plain_images() -> None:
    assert _corner(image((10, 200, 30), form="PNG")) == (10, 200, 30)
    assert _corner(image((10, 200, 30), form="WEBP", size=(40, 40))) == pytest.approx((10, 200, 30), abs=6)
    assert _corner(encode(Image.new("L", (4, 4), 77), "PNG")) == (77, 77, 77)
    assert _corner(encode(Image.new("1", (4, 4), 1), "PNG")) == (255, 255, 255)


def test_cmyk_jpeg() -> None:
    red = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    assert _corner(red) == pytest.approx((255, 0, 0), abs=6)


def test_transparency_becomes_white() -> None:
    assert _corner(encode(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")) == (255, 255, 255)
    assert _corner(encode(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")) == pytest.approx((255, 127, 127), abs=1)
    assert _corner(encode(Image.new("LA", (4, 4), (0, 0)), "PNG")) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 99, 199])
    assert _corner(encode(palette, "PNG")) == (9, 99, 199)
    assert _corner(encode(palette, "PNG", transparency=1)) == (255, 255, 255)
    assert _corner(encode(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x80F0, dtype=np.uint16))
    assert _corner(encode(grey, "PNG")) == (128, 128, 128)


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (32, 16), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 16, 16))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    upright = decode_image(encode(image, "JPEG", exif=exif, quality=95, subsampling=0))
    assert upright.size == (16, 32)
    assert upright.getpixel((8, 4)) == pytest.approx((255, 0, 0), abs=8)
    assert upright.getpixel((8, 28)) == pytest.approx((0, 0, 255), abs=8)


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_orientation_beside_the_file_turns_as_one_inside_it(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    inside = encode(_noise(), "JPEG", exif=exif.tobytes())
    expected = decode_image(inside)
    assert np.array_equal(decode_image(encode(_noise(), "JPEG"), orientation=turn), expected)
    for other in (1, 3, 6):
        assert np.array_equal(decode_image(inside, orientation=other), expected), "the file's own counts"


def test_tiff_and_avif_are_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.linear_gradient("L").resize((40, 24)).convert("RGB")
    for form, far in (("TIFF", 0), ("AVIF", 8)):
        plain, turned = encode(smooth, form, quality=95), encode(smooth, form, quality=95, exif=exif.tobytes())
        assert np.abs(np.asarray(decode_image(plain), dtype=int) - np.asarray(smooth)).max() <= far
        assert np.array_equal(decode_image(turned), decode_image(plain).transpose(Image.Transpose.ROTATE_270))
        assert np.array_equal(decode_image(plain, orientation=6), decode_image(turned))
        assert np.array_equal(decode_image(turned, orientation=3), decode_image(turned))
    pages = encode(Image.new("L", (8, 4), 9), "TIFF", save_all=True, append_images=[Image.new("L", (2, 2), 200)])
    assert _corner(pages) == (9, 9, 9)
    assert _corner(encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    assert _corner(encode(Image.fromarray(np.full((4, 4), 0x80F0, dtype=np.uint16)), "TIFF")) == (128, 128, 128)
    with pytest.raises(UnusableSample, match="floating-point"):
        decode_image(encode(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_damaged_exif_does_no_harm() -> None:
    data = encode(Image.new("RGB", (8, 8), (9, 9, 9)), "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f" * 3)
    assert decode_image(data).size == (8, 8)


def _empty_png(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND"]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_refused_by_their_header(side: int) -> None:
    with pytest.raises(UnusableSample) as caught:
        decode_image(_empty_png(side, side))
    assert caught.value.reason == "image too large"


BROKEN = [b"", b"<html>404</html>", image()[:200], _empty_png(5, 5), image(size=(99, 99))[:-300]]


@pytest.mark.parametrize("data", BROKEN)
def test_unreadable_images(data: bytes) -> None:
    with pytest.raises(UnusableSample) as caught:
        decode_image(data)
    assert caught.value.reason == "unreadable image"
    assert caught.value.detail
