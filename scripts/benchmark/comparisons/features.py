"""Stage 1 from stored features beside the same step with its vision tower, at the paper's sizes.

Shape letters: B batch, P patches with prefix tokens, Dv tower width.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.comparisons.comparison import Comparison
from benchmark.options import BenchmarkOptions
from benchmark.representation import RepresentationStage
from blip2_train.config.compose import compose, instantiate
from blip2_train.data.features.layout import FeatureLayout
from blip2_train.models.image_text import ImageTextModel
from blip2_train.types import ImageTextBatch

_WEB = (8, 32)
"""Fewest and most tokens of captions of the web, of which a batch practically always holds one of 32."""
_TURNS = 2
_STAGE = RepresentationStage()


def compare() -> list[Comparison]:
    """Operations of a sample, and time of a step of two samples on the CPU."""
    config = compose(["experiment=stage1_vit_g"])
    return [_compare_flops(config), _compare_speed(config)]


def _options(batch_size: int) -> BenchmarkOptions:
    return BenchmarkOptions(device="cpu", batch_size=batch_size, steps=1, precision="32", tokens=_WEB)


def _model(config: DictConfig, options: BenchmarkOptions) -> tuple[ImageTextModel, ImageTextBatch]:
    """The recipe's model without memory for its weights, and a batch of random images and texts."""
    with torch.device("meta"):
        model = _STAGE.build_model(config, options)
    return model, _STAGE.synthetic_batch(model, options, config.max_text_length, torch.Generator().manual_seed(0))


def _step(config: DictConfig, model: ImageTextModel, batch: ImageTextBatch) -> None:
    objective = instantiate(config.objective)
    objective(model, batch, torch.Generator().manual_seed(0)).total.backward()
    model.zero_grad(set_to_none=True)


def _compare_flops(config: DictConfig, batch_size: int = 8) -> Comparison:
    empty, batch = _model(config, options=_options(batch_size))
    patches, width = _sizes(empty)
    counted = []
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model = empty.to_empty(device="cpu")
        for from_features in (False, True):
            if from_features:
                model.vision_model.read_features()
                batch = replace(batch, pixel_values=torch.empty(batch_size, 1, patches, width))
            with FlopCounterMode(display=False) as counter:
                _step(config, model, batch)
            counted.append(counter.get_total_flops() / batch_size / 1e9)
    other, ours = counted
    return Comparison(
        name="features_flops",
        what="stage 1 from stored features, web captions: operations of a sample",
        ours=f"{ours:.1f} GFLOP",
        other=f"{other:.1f} GFLOP with the ViT-g tower",
        ratio=ours / other,
        target=0.25,
    )


def _compare_speed(config: DictConfig, batch_size: int = 2) -> Comparison:
    model, images = _model(config, _options(batch_size))
    _give_values(model.to_empty(device="cpu"))
    patches, width = _sizes(model)
    layout = FeatureLayout(patches=patches, width=width, dtype="float32", bits=16)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{row}.safetensors" for row in range(batch_size)]
        for file in files:
            file.write_bytes(layout.encode(torch.randn(patches, width)))

        def read() -> Tensor:
            return torch.stack([layout.decode(file.read_bytes())[None] for file in files])

        other = [_seconds(lambda: _step(config, model, images)) for _ in range(_TURNS)]
        model.vision_model.read_features()
        times = [
            _seconds(lambda: _step(config, model, replace(images, pixel_values=read()))) for _ in range(1 + _TURNS)
        ]
    ours, theirs = median(times[1:]), min(other)
    return Comparison(
        name="features_speed",
        what=f"stage 1 from stored features, {batch_size} samples: time of a step, features read from disk",
        ours=f"{ours:.2f} s",
        other=f"{theirs:.2f} s with the ViT-g tower",
        ratio=theirs / ours,
        target=3.0,
        bound="at least",
    )


def _sizes(model: ImageTextModel) -> tuple[int, int]:
    """P and Dv."""
    tower = model.vision_model
    return tower.grid_size[0] * tower.grid_size[1] + tower.num_prefix_tokens, tower.width


@torch.no_grad()
def _give_values(model: ImageTextModel) -> None:
    """Small random weights, quickly: those of a gigabyte of them need not be independent."""
    noise = torch.randn(1 << 20) * 0.02
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.copy_(noise.repeat(-(-tensor.numel() // len(noise)))[: tensor.numel()].view_as(tensor))
        if tensor.ndim == 1 and name.endswith("weight"):
            tensor.fill_(1.0)
    model.temperature.fill_(0.07)
    model.complete_from_meta()


def _seconds(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began
