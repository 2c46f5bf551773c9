"""Images that cost a decoder what photographs do, made from a seed and written to tar shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 85
"""Of the JPEGs; colours are at half the resolution, as is usual."""
_FALL = 1.3
"""How amplitudes fall with frequency: as 1/f in a scene, faster behind a lens. Such JPEGs take some 2 bits a pixel."""
_SPREAD = (48.0, 14.0, 14.0)
"""Standard deviation of brightness and of both colour differences, levels of 255."""


def photographs(size: tuple[int, int], count: int, seed: int) -> Iterator[bytes]:
    """JPEG files with the spectrum of photographs, and some noise of a sensor.

    Args:
        size: width and height, pixels.
        count: how many; they are windows of one large canvas.
        seed: of everything.
    """
    noise = np.random.default_rng(seed)
    canvas = _canvas(2 * max(size), noise)
    for _ in range(count):
        left, top = noise.integers(0, 2 * max(size) - np.array(size) + 1)
        window = canvas[top : top + size[1], left : left + size[0]]
        grainy = (window + noise.normal(0, 2.0, window.shape)).clip(0, 255).astype(np.uint8)
        image = Image.frombytes("YCbCr", size, grainy.tobytes())
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def _canvas(side: int, noise: np.random.Generator) -> NDArray[np.float32]:
    """Brightness and colour differences `(side, side, 3)` around 128."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    channels = []
    for spread in _SPREAD:
        spectrum = np.fft.rfft2(noise.standard_normal((side, side))) / frequency**_FALL
        field = np.fft.irfft2(spectrum, (side, side))
        channels.append(128 + spread * field / field.std())
    return np.stack(channels, axis=-1).astype(np.float32)


def write_photographs(path: Path, size: tuple[int, int], count: int, seed: int | None = None) -> Path:
    """A tar shard of `count` photographs with captions; the seed is their width if None."""
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(photographs(size, count, size[0] if seed is None else seed)):
            for end, data in (("jpg", content), ("txt", f"a photograph of the number {number}".encode())):
                member = tarfile.TarInfo(f"{number:06d}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path
