"""Times training steps of a recipe, plan beside plan, and counts what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from benchmark.meters import FlopMeter, matmul_ceiling
from benchmark.options import BenchmarkOptions, precision_type
from benchmark.plans import Plan
from benchmark.record import as_record
from benchmark.stage import Stage
from benchmark.stages import stage_of
from benchmark.timing import Runner
from omegaconf import DictConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blip2_train.config.compose import instantiate
from blip2_train.optim.param_groups import build_adamw, parameter_groups
from gpu_visit.results import Add

MakePlans = Callable[[Stage, Any, Any], list[Plan]]
"""From a stage, its model and its objective to the plans that are compared."""
POOL = 2
"""Random batches, used in turn."""


class Steps:
    """A recipe's model on the device, and what trains it.

    Args:
        config: From `compose`.
        options: Of the benchmark.
        add: Receives rows.
    """

    def __init__(self, config: DictConfig, options: BenchmarkOptions, add: Add) -> None:
        self.config, self.options, self.add = config, options, add
        self.device, self.dtype = torch.device(options.device), precision_type(options.precision)
        self.stage = stage_of(config)
        torch.manual_seed(0)
        with self.device:
            self.model: Any = self.stage.build_model(config, options)
        self.stage.use_precision(self.model, options)
        self.objective: Any = instantiate(config.objective)
        adam = instantiate(config.optim)
        groups = parameter_groups(self.model.named_parameters(), self.model.vision_model.num_blocks, adam)
        self.runner = Runner(self.model, build_adamw(groups, adam), self.device, options.precision, print)
        self.ceiling = matmul_ceiling(self.device, self.dtype)

    def time(
        self,
        table: str,
        plans: Sequence[Plan],
        batch: int,
        lengths: tuple[int, int] | None = None,
        counted: Plan | None = None,
    ) -> None:
        """Time the plans in turn on batches of one size, and add a row for each; what does not fit gets a row too.

        Args:
            table: Name of the table.
            plans: What to run.
            batch: Samples.
            lengths: Fewest and most tokens of a text; None = those of the options.
            counted: Plan whose operations are counted in place of theirs, which cannot be counted in 8 bits.
        """
        options = replace(self.options, batch_size=batch, tokens=lengths or self.options.tokens)
        generator = torch.Generator().manual_seed(0)
        pool = [
            self.stage.synthetic_batch(self.model, options, self.config.max_text_length, generator) for _ in range(POOL)
        ]

        def source() -> Iterator[Any]:
            while True:
                yield from pool

        try:
            figures = self.runner.time(plans, source, lambda one: self.stage.amounts(self.model, one), options.steps)
            for figure in figures:
                figure.flops = self.count(counted or figure.plan, pool[0])
        except torch.OutOfMemoryError as error:
            self.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            names = ", ".join(plan.name for plan in plans)
            self.add(table, plan=names, batch=batch, why=f"out of memory: {str(error).splitlines()[0]}")
            return
        for name, plan in as_record(figures, self.ceiling, {})["plans"].items():
            speed = plan["speed"]
            self.add(
                table,
                plan=name,
                batch=batch,
                tokens="-".join(map(str, options.tokens)),
                **{"step ms": 1e3 * plan["step_seconds"], "samples/s": plan["samples_per_second"]},
                **{"TFLOP/s": plan["flops_per_second"] / 1e12, "share of ceiling": plan["share_of_ceiling"]},
                **{"peak GiB": plan["peak_bytes"] / 2**30, "TFLOP a step": plan["flops_per_step"] / 1e12},
                against=plan["compared_with"],
                speed=None if speed is None else speed["median"],
                parts=", ".join(f"{part} {1e3 * seconds:.1f}" for part, seconds in plan["part_seconds"].items()),
            )

    def count(self, plan: Plan, batch: Any) -> dict[str, float]:
        """Operations of each part of a step, counted while one runs; attention as plain matrix products on a CPU."""
        exact: AbstractContextManager[Any] = nullcontext()
        if self.device.type == "cpu":
            exact = sdpa_kernel(SDPBackend.MATH)
        with exact, FlopCounterMode(display=False) as counter:
            meter = FlopMeter(counter)
            here = batch.to(self.device)
            meter.start()
            with self.runner.autocast():
                loss = plan.forward(here, meter.mark)
            if loss is not None:
                loss.backward()
                meter.mark("backward")
        self.model.zero_grad(set_to_none=True)
        return meter.parts()
