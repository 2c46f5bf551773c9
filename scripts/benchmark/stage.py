"""What a stage of training has to give, so that its steps can be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig

from benchmark.options import BenchmarkOptions
from benchmark.plans import TOWER_PLANS, Plan
from blip2_train.errors import ConfigError
from blip2_train.types import Batch


@dataclass(frozen=True, kw_only=True)
class GenerationWorkload:
    """Plans that generate text, and the batches they read."""

    plans: list[Plan]
    batch: Batch
    """On the CPU."""
    amounts: dict[str, float]
    """What a step makes, by name: `images`, `new_tokens`."""
    note: str
    """The request in a few words."""


class Stage(ABC):
    """A stage of training."""

    fewest_samples: ClassVar[int] = 1
    """Samples without which a step makes no sense."""
    default_plans: ClassVar[Mapping[str, tuple[str, ...]]]
    """What is compared unless plans are named, by device."""
    about: ClassVar[Mapping[str, str]]
    """The plans there are, and what they do."""

    def plan_names(self, options: BenchmarkOptions) -> tuple[str, ...]:
        """The plans to compare.

        Raises:
            ConfigError: if a plan is not known, or cannot run with the options.
        """
        names = options.plans or tuple(
            plan for plan in self.default_plans[options.device] if options.vision or plan not in TOWER_PLANS
        )
        for plan in names:
            if plan not in self.about and plan not in TOWER_PLANS:
                known = ", ".join([*self.about, *TOWER_PLANS])
                raise ConfigError(f"plans has no plan {plan!r} for this recipe; there are {known}")
            if plan in TOWER_PLANS and not options.vision:
                raise ConfigError(f"plan {plan} times the tower, but vision=false leaves it out; drop one of the two")
        if options.batch_size < self.fewest_samples and set(names) - set(TOWER_PLANS):
            raise ConfigError(f"batch_size={options.batch_size} has no negatives to match; use at least 2")
        return names

    @abstractmethod
    def build_model(self, config: DictConfig, options: BenchmarkOptions) -> Any:
        """The recipe's model with random weights, on torch's default device, in training mode."""

    @abstractmethod
    def synthetic_batch(
        self, model: Any, options: BenchmarkOptions, max_text_length: int, generator: torch.Generator
    ) -> Batch:
        """Random images and texts on the CPU; one text has the most tokens that are allowed."""

    @abstractmethod
    def amounts(self, model: Any, batch: Any) -> dict[str, float]:
        """What there is in a batch on the CPU, by name (`samples`)."""

    @abstractmethod
    def build_plans(self, names: Sequence[str], model: Any, objective: Any, count_only: bool = False) -> list[Plan]:
        """The plans of these names, over the weights of `model`.

        Args:
            names: Keys of `about` or `TOWER_PLANS`.
            model: The model, in training mode or not.
            objective: Settings of the losses.
            count_only: The tensors hold no values: nothing that depends on them is done, nothing is compiled.
        """

    def prove(self, names: Sequence[str], model: Any, objective: Any, options: BenchmarkOptions) -> list[str]:
        """Show that the plans do the same, in float32, before anything is timed.

        Args:
            names: Of the plans.
            model: As built; in training mode before and after.
            objective: Settings of the losses.
            options: What to measure.

        Returns:
            What was shown, line by line.

        Raises:
            TrainingError: if they do not.
        """
        return []

    @abstractmethod
    def use_precision(self, model: Any, options: BenchmarkOptions) -> None:
        """Give the frozen parts the precision in which they are measured."""

    def prove_timed(self, plans: Sequence[Plan], model: Any, batch: Any, precision: str) -> list[str]:
        """As `prove`, for the very plans that are timed, on one of their batches, under autocast where it is used."""
        return []

    def generation_workload(
        self, names: Sequence[str], model: Any, options: BenchmarkOptions
    ) -> GenerationWorkload | None:
        """Plans that generate text; None if such models do not."""
        return None
