"""`python scripts/costs.py`: memory, largest micro-batches and GPU hours of recipes, computed and not measured.

A row of Markdown for each recipe, as `docs/costs.md` has them. A step of the recipe runs on tensors without values: its
operations are counted (a multiply-add as 2, attention as plain products, what is computed again too), and its memory is
that of `describe.py --memory`. Hours follow from the peak of the GPU and a share of it that is assumed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blip2_train.cli.meta_model import meta_model
from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import compose, instantiate, recipes
from blip2_train.config.key_values import split_settings
from blip2_train.errors import ConfigError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.memory import stored_bytes, training_state_bytes
from blip2_train.system.screen import echo
from blip2_train.training.planned_memory import autocast, full_batch, plan_step, usable_bytes

PEAKS = {"A100": 312e12, "H100": 989e12}
"""Operations a second of matrix products in bfloat16, dense: NVIDIA's data sheets of the SXM modules."""
PRECISION = "bf16-mixed"
COUNTED = 32
"""Samples of the step that is counted."""
HEADING = """\
| recipe | GFLOP a sample | weights, gradients, AdamW | largest micro-batch, {cards} GB | hours, one A100 | one H100 |
| --- | --- | --- | --- | --- | --- |"""
USAGE = """usage: python scripts/costs.py [recipes=<name>,<name>] [cards=40,80] [utilisation=0.35] [setting=value …]

  recipes=      which; those of the paper if not given
  cards=        GPUs by the GB on their names, for the largest micro-batches
  utilisation=  share of the GPU's peak that is assumed, 0 to 1
  other settings are those of the recipes: steps=2000 global_batch_size=64 model.vision.frozen=true peft=lora"""


@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """What is computed."""

    recipes: Sequence[str] = ()
    """Names; those of the paper if empty."""
    utilisation: float = 0.35
    """Share of the peak."""
    cards: Sequence[int] = (40, 80)
    """GPUs by the GB on their names: A100 with 40 or 80, H100 with 80."""

    def __post_init__(self) -> None:
        if not self.cards or min(self.cards) < 1:
            raise ConfigError("cards are GPUs by the GB on their names: cards=24,80")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(
                f"utilisation is a share of the peak, more than 0 and at most 1; got {self.utilisation:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a recipe takes."""

    recipe: str
    samples: int
    """Of the whole run."""
    operations: float
    """Of one sample of a training step."""
    state: int
    """Bytes of weights, gradients and AdamW's moments."""
    micro_batches: tuple[int, ...]
    """The largest on each card; 0 = not even one sample."""

    def hours(self, peak: float, utilisation: float) -> float:
        """Hours of one GPU of that peak for the whole run.

        Example:
            >>> Cost(recipe="", samples=3600, operations=1e12, state=0, micro_batches=()).hours(1e12, 0.5)
            2.0
        """
        return self.samples * self.operations / (peak * utilisation) / 3600

    def row(self, utilisation: float) -> str:
        """A row below `HEADING`."""
        sizes = " / ".join(f"{size:,}" if size else "–" for size in self.micro_batches)
        taken = [self.hours(peak, utilisation) for peak in PEAKS.values()]
        hours = (f"{hours:,.0f}" if hours >= 1 else f"{hours:.1f}" for hours in taken)
        cells = [f"`{self.recipe}`", f"{self.operations / 1e9:,.0f}", f"{self.state / 2**30:.1f} GiB", sizes, *hours]
        return f"| {' | '.join(cells)} |"


def cost_of(recipe: str, settings: Sequence[str], cards: Sequence[int]) -> Cost:
    """Compute what a recipe of the paper takes.

    Args:
        recipe: Its name.
        settings: Changes to it.
        cards: As in `CostOptions`.
    """
    config = compose([f"experiment={recipe}", "init_from=null", *settings])
    model = meta_model(config)
    state = stored_bytes(model) + training_state_bytes(model)
    plan = plan_step(model, instantiate(config.objective), config.max_text_length, PRECISION, on_gpu=True)
    return Cost(
        recipe=recipe,
        samples=config.steps * config.global_batch_size,
        operations=_operations(model, config) / COUNTED,
        state=round(state),
        micro_batches=tuple(plan.largest_micro_batch(usable_bytes(card) - state) for card in cards),
    )


def _operations(model: Blip2Model, config: DictConfig) -> float:
    """Operations of a step of `COUNTED` samples, forward and backward."""
    objective = instantiate(config.objective)
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model = model.to_empty(device="cpu").train()
        batch = full_batch(model, objective.batch_type, COUNTED, config.max_text_length)
        with FlopCounterMode(display=False) as counter:
            with autocast(PRECISION):
                loss = objective(model, batch, torch.Generator().manual_seed(0)).total
            loss.backward()
    return float(counter.get_total_flops())


def main(arguments: list[str]) -> None:
    """Print the table.

    Raises:
        ConfigError: if a recipe does not exist, or a setting of the command or of a recipe cannot be used.
    """
    if {"--help", "-h"} & set(arguments):
        echo(USAGE)
        return
    options, settings = split_settings(arguments, CostOptions)
    named = options.recipes or [name for name in recipes() if not name.startswith(("demo_", "real_"))]
    echo(HEADING.format(cards=" / ".join(map(str, options.cards))))
    for name in named:
        echo(cost_of(name, settings, options.cards).row(options.utilisation), flush=True)


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
