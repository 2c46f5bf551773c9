"""Runs plans in turn, so that noise of the machine affects them alike, and measures time and memory of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmark.memory import StepMemory, step_memory
from benchmark.meters import Clock
from benchmark.options import precision_type
from benchmark.plans import Plan

WARM_UP = {"cpu": 1, "cuda": 2}
"""Steps before the one that memory is measured on, after which time is."""


@dataclass(kw_only=True)
class PlanFigures:
    """What one plan took."""

    plan: Plan
    memory: StepMemory
    seconds: list[dict[str, float]] = field(default_factory=list)
    """Of each part, for each timed step."""
    busy: list[float] = field(default_factory=list)
    """Processor time of each timed step, seconds; on a GPU zeros."""
    amounts: list[dict[str, float]] = field(default_factory=list)
    """What each timed step worked on, by name: `samples`, …"""
    flops: dict[str, float] = field(default_factory=dict)
    """Counted operations of each part."""


class Runner:
    """Runs steps of a model.

    Args:
        model: Whose weights the plans use.
        optimizer: Updates them after each loss.
        device: Where they lie.
        precision: Key of `benchmark.options.PRECISIONS`.
        say: Receives a line about what happens next.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: str,
        say: Callable[[str], None],
    ) -> None:
        self._model, self._optimizer, self._device, self._say = model, optimizer, device, say
        self._dtype = precision_type(precision)
        self._clock = Clock(device)

    def autocast(self) -> AbstractContextManager[Any]:
        """What forward passes run under."""
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def time(
        self,
        plans: Sequence[Plan],
        source: Callable[[], Iterator[Any]],
        amounts: Callable[[Any], dict[str, float]],
        steps: int,
    ) -> list[PlanFigures]:
        """Warm up, then run every plan `steps` times, one step of each in turn and every other turn backwards.

        Args:
            plans: What to run.
            source: Gives a plan its batches on the CPU.
            amounts: What there is in a batch.
            steps: Timed steps per plan.
        """
        batches = {plan.name: source() for plan in plans}
        figures = [PlanFigures(plan=plan, memory=self._warm_up(plan, batches[plan.name])) for plan in plans]
        for step in range(steps):
            self._say(f"step {step + 1} of {steps}, each plan in turn")
            for figure in figures if step % 2 == 0 else reversed(figures):
                batch = self._run(figure.plan, batches[figure.plan.name])
                figure.seconds.append(self._clock.parts())
                figure.busy.append(self._clock.busy())
                figure.amounts.append(amounts(batch))
        return figures

    def _warm_up(self, plan: Plan, source: Iterator[Any]) -> StepMemory:
        self._say(f"warming up {plan.name}")
        for _ in range(WARM_UP[self._device.type]):
            self._run(plan, source)
        return step_memory(lambda: self._run(plan, source), self._model, self._device)

    def _run(self, plan: Plan, source: Iterator[Any]) -> Any:
        clock = self._clock
        clock.start()
        fetched = next(source)
        batch = fetched.to(self._device)
        clock.mark("data")
        with self.autocast():
            loss = plan.forward(batch, clock.mark)
        if loss is not None:
            loss.backward()
            clock.mark("backward")
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            clock.mark("optimiser")
        return fetched
