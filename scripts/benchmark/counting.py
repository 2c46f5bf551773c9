"""Counts the arithmetic of plans: matrix products and convolutions, a multiply-add as 2 operations.

All plans are counted with attention as plain matrix products, because torch does not count its fused kernels on a CPU;
what is counted is the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from omegaconf import DictConfig
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.meters import FlopMeter
from benchmark.options import BenchmarkOptions
from benchmark.plans import Plan
from benchmark.stages import stage_of
from blip2_train.config.compose import instantiate
from blip2_train.types import Batch

Flops = dict[str, dict[str, float]]
"""Operations of each part, by plan."""


def count_flops(config: DictConfig, options: BenchmarkOptions) -> Flops:
    """Operations of a step of the recipe's plans, counted on tensors without values."""
    stage = stage_of(config)
    with torch.device("meta"):
        empty = stage.build_model(config, options)
    counts = {}
    batch = stage.synthetic_batch(empty, options, config.max_text_length, torch.Generator().manual_seed(0))
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model = empty.to_empty(device="cpu")
        names = stage.plan_names(options)
        for plan in stage.build_plans(names, model, instantiate(config.objective), count_only=True):
            with FlopCounterMode(display=False) as counter:
                meter = FlopMeter(counter)
                meter.start()
                loss = plan.forward(batch, meter.mark)
                if loss is not None:
                    loss.backward()
                    meter.mark("backward")
            model.zero_grad(set_to_none=True)
            counts[plan.name] = meter.parts()
    return counts


def count_generation(plans: Sequence[Plan], batch: Batch, model: nn.Module) -> Flops:
    """Operations of plans that generate text, counted while they run, because their course depends on the values."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:  # torch's counter fails on views of such parameters where no gradient is recorded
        parameter.requires_grad_(False)
    counts = {}
    with sdpa_kernel(SDPBackend.MATH):
        for plan in plans:
            with FlopCounterMode(display=False) as counter:
                meter = FlopMeter(counter)
                meter.start()
                plan.forward(batch, meter.mark)
            counts[plan.name] = meter.parts()
    for parameter in trained:
        parameter.requires_grad_(True)
    return counts
