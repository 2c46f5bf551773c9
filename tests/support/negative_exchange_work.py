"""A step whose negatives lie on other processes, with everything to compare, for any number of processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from reference_cases import SEED, gradients, rows_of
from tiny import image_text_batch, image_text_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from traffic import Traffic, for_negatives

from blip2_train.distributed import exchange_rows, mean_over_processes, rank, world_size
from blip2_train.objectives.negatives import Choices
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch, ObjectiveOutput

SIZE = 12
"""Samples of all processes together."""
RULES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "sampled": None,
    "one image": lambda text: torch.where(text == 0, 1, 0),
    "images of the first process": lambda text: (text + 1) % 3,
    "the next process's": lambda text: (text + 6) % SIZE,
    "own": lambda text: text // 2 * 2 + (text + 1) % 2,
}
"""Negative image of each text, where it is not sampled; `own`: of one and the same process."""
TOWERS: dict[str, dict[str, Any]] = {"frozen": {}, "trained": {"frozen": False}}
CASES = [(tower, rule) for tower in TOWERS for rule in RULES]


class ChoosingObjective(RepresentationObjective):
    """Takes negative images by a rule."""

    def __init__(self, rule: str, **options: Any) -> None:
        super().__init__(**options)
        self.rule = RULES[rule]

    def _choose(self, contrast: Any, layout: Any, generator: torch.Generator) -> Choices:
        choices = super()._choose(contrast, layout, generator)
        if self.rule is None:
            return choices
        return choices._replace(images=self.rule(layout.samples_of(rank()).flatten()))


class Step(nn.Module):
    """The objective as a module, so that data-parallel training can wrap it."""

    def __init__(self, model: nn.Module, rule: str) -> None:
        super().__init__()
        self.model, self.objective = model, ChoosingObjective(rule)
        self.output: ObjectiveOutput

    def forward(self, batch: ImageTextBatch) -> Tensor:
        self.output = self.objective(self.model, batch, torch.Generator().manual_seed(SEED))  # type: ignore[arg-type]
        return self.output.total


def exchanged(tower: str, rule: str) -> dict[str, Any]:
    """Losses and statistics (means over processes), gradients, and what travelled, of a step in float64."""
    vision = {"image_size": 64, **TOWERS[tower]}
    module = Step(image_text_model(vision=vision).double(), rule)
    batch = image_text_batch(SIZE, seed=4, image_size=64)
    batch = dataclasses.replace(batch, pixel_values=batch.pixel_values.double())
    share = SIZE // world_size()
    run = module if world_size() == 1 else DistributedDataParallel(module)
    mine = rows_of(batch, rank() * share, share)
    with Traffic() as traffic:
        run(mine).backward()
    row = module.model.vision_model(mine.pixel_values[:1])  # type: ignore[operator]
    losses, stats = (
        {name: mean_over_processes(value.double()).item() for name, value in values.items()}
        for values in (module.output.terms, module.output.stats)
    )
    return {
        "losses": losses,
        "stats": stats,
        "gradients": gradients(module.model),
        "received": for_negatives(traffic.received) / (share * row.numel() * row.element_size()),
    }


def rows_from_everywhere() -> dict[str, Any]:
    """What `exchange_rows` gives when each process wants other rows, some of them twice or none, and its gradient."""
    rows = torch.arange(3.0, dtype=torch.float64)[:, None] + 10 * rank()
    rows.requires_grad_()
    requests = [torch.tensor([1, 3 * world_size() - 1, 1, 0]), *([torch.tensor([], dtype=torch.int64)] * world_size())]
    requests = [*requests[: world_size() - 1], torch.tensor([1, 2])]
    received = exchange_rows(rows, requests)
    (received * 100 ** rank()).sum().backward()
    assert rows.grad is not None
    plain = rows.detach()
    halves = [exchange_rows(plain.to(kind), requests) for kind in (torch.bfloat16, torch.float16, torch.bool)]
    return {"rows": received.detach(), "gradient": rows.grad, "others": halves}


def work() -> dict[str, Any]:
    """Everything that the tests ask of one of several processes."""
    return {"steps": [exchanged(*case) for case in CASES], "rows": rows_from_everywhere()}
