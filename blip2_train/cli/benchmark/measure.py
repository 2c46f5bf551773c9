"""Runs the plans of a benchmark in turn, and counts their arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blip2_train.cli.benchmark.meters import Clock, FlopMeter, Meter, median_parts, peak_memory
from blip2_train.cli.benchmark.options import BenchmarkOptions
from blip2_train.cli.benchmark.plans import Plan, build_plans
from blip2_train.cli.benchmark.workload import batches, build_model, synthetic_batch
from blip2_train.cli.compose import instantiate
from blip2_train.optim.param_groups import build_adamw, parameter_groups
from blip2_train.types import ImageTextBatch

WARM_UP = {"cpu": 0, "cuda": 2}
"""Steps before the one that memory is measured on, after which time is."""


@dataclass(frozen=True, kw_only=True)
class PlanFigures:
    """What one plan took."""

    name: str
    seconds: dict[str, float]
    """Median of each part."""
    flops: dict[str, float]
    """Counted operations of each part."""
    peak_bytes: int
    peak_kind: str
    """What `peak_bytes` counts."""


def measure(config: DictConfig, options: BenchmarkOptions, say: Callable[[str], None]) -> list[PlanFigures]:
    """Time every plan of a recipe, one step of each in turn, so that noise of the machine meets them alike.

    Args:
        config: From `compose`.
        options: What to measure.
        say: Told what happens next.
    """
    say("making the model")
    device = torch.device(options.device)
    torch.manual_seed(0)
    with device:
        model = build_model(config, options)
    adam = instantiate(config.optim)
    num_blocks = model.vision_model.num_blocks
    optimizer = build_adamw(parameter_groups(model.named_parameters(), num_blocks, adam), adam)
    plans = build_plans(options.plans, model, instantiate(config.objective))
    source, clock = batches(config, model, options), Clock(device)

    def run(plan: Plan, meter: Meter) -> None:
        _step(plan, source, device, options.precision == "bf16", optimizer, meter)

    memory = {}
    for plan in plans:
        say(f"warming up {plan.name}")
        for _ in range(WARM_UP[options.device]):
            run(plan, clock)
        memory[plan.name] = peak_memory(lambda plan=plan: run(plan, clock), device)  # type: ignore[misc]
    seconds: dict[str, list[dict[str, float]]] = {plan.name: [] for plan in plans}
    for step in range(options.steps):
        say(f"step {step + 1} of {options.steps}, each plan in turn")
        for plan in plans:
            run(plan, clock)
            seconds[plan.name].append(clock.parts())
    say("counting the arithmetic")
    flops = count_flops(config, options)
    return [
        PlanFigures(
            name=plan.name,
            seconds=median_parts(seconds[plan.name]),
            flops=flops[plan.name],
            peak_bytes=memory[plan.name][0],
            peak_kind=memory[plan.name][1],
        )
        for plan in plans
    ]


def _step(
    plan: Plan,
    source: Iterator[ImageTextBatch],
    device: torch.device,
    bfloat16: bool,
    optimizer: torch.optim.Optimizer,
    meter: Meter,
) -> None:
    meter.start()
    batch = next(source).to(device)
    meter.mark("data")
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        loss = plan.forward(batch, meter.mark)
    if loss is not None:
        loss.backward()
        meter.mark("backward")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.mark("optimiser")


def count_flops(config: DictConfig, options: BenchmarkOptions) -> dict[str, dict[str, float]]:
    """Operations of each part of each plan's step, counted on tensors without values.

    All plans are counted with attention as plain matrix products, because torch does not count its fused kernels on a
    CPU; what is counted is the same arithmetic.
    """
    with torch.device("meta"):
        empty = build_model(config, options)
    counts = {}
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model = empty.to_empty(device="cpu")
        batch = synthetic_batch(model, options, config.max_text_length, None)
        for plan in build_plans(options.plans, model, instantiate(config.objective), count_only=True):
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
