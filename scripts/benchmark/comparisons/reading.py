"""Reading images for training beside a bare loop of Pillow: decode, crop, resize, tensor, normalise."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.comparisons.comparison import Comparison
from benchmark.loader.photographs import photographs
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, EXACT, FAST, TrainTransform

_SIDE = 224
_IMAGES = 32
_TURNS = 7
_TARGETS = {(640, 480): 1.8, (1024, 768): 2.3}
_MEAN, _STD = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))


def compare() -> list[Comparison]:
    """Images per second of one core at two sizes, and how far their levels are from those of the bare loop."""
    return [_compare(size, target) for size, target in _TARGETS.items()]


def _compare(size: tuple[int, int], target: float) -> Comparison:
    contents = list(photographs(size, _IMAGES, seed=1))
    fast, exact = (TrainTransform(_SIDE, CLIP_MEAN, CLIP_STD, decoder=decoder) for decoder in (FAST, EXACT))

    def read(content: bytes, seed: int) -> Tensor:
        """As a reader does, and normalised, as the device does later."""
        return fast.from_file(content, torch.Generator().manual_seed(seed))

    def bare(content: bytes, seed: int) -> Tensor:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        top, left, height, width = fast._crop(image.width, image.height, torch.Generator().manual_seed(seed))
        cut = image.crop((left, top, left + width, top + height)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous().to(torch.float32)
        return pixels.div_(255).sub_(_MEAN).div_(_STD)

    ours, other = _seconds(contents, [read, bare])
    differences = []
    for seed, content in enumerate(contents):
        levels = [way.levels_from_file(content, torch.Generator().manual_seed(seed)) for way in (fast, exact)]
        differences.append(float((levels[0].float() - levels[1].float()).abs().mean()))
    width, height = size
    return Comparison(
        name=f"jpeg_{width}",
        what=f"training images of {width}x{height} (levels differ by {statistics.mean(differences):.2f} of 255)",
        ours=f"{1 / ours:.0f} images/s and core",
        other=f"{1 / other:.0f}, a bare Pillow loop",
        ratio=other / ours,
        target=target,
        bound="at least",
    )


def _seconds(contents: Sequence[bytes], ways: Sequence[Callable[[bytes, int], Tensor]]) -> list[float]:
    """Processor time of each way for an image: medians of alternating turns, the first of which warms up."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(_TURNS + 1):
        order = range(len(ways)) if turn % 2 else reversed(range(len(ways)))
        for number in order:
            began = time.process_time()
            for seed, content in enumerate(contents):
                ways[number](content, seed)
            if turn:
                times[number].append((time.process_time() - began) / len(contents))
    return [statistics.median(each) for each in times]
