"""What a run is, in a few lines before it starts; and in detail, for its log and for who wants to see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from torch import nn

from blip2_train.checkpoints.load_rules import LoadReport
from blip2_train.cli.part_sizes import parts_table, size_text
from blip2_train.models.freezing import PartSize
from blip2_train.optim.param_groups import ParameterGroup
from blip2_train.system.line_log import LINES

_WEIGHTS = ("itc_weight", "itm_weight", "itg_weight")
_NAMED = 4
"""Parts of a model that are named, the largest."""


def summary_lines(recipe: str, parts: Sequence[PartSize], reports: Sequence[LoadReport], folder: Path) -> list[str]:
    r"""Recipe, sizes, weights and folder of a run.

    Args:
        recipe: Its name.
        parts: Of the model.
        reports: Of the weights that it starts from.
        folder: Of the run.

    Example:
        >>> part = PartSize(name="qformer", parameters=10, trainable=10, weight_bytes=40, training_bytes=120)
        >>> print("\n".join(summary_lines("demo", [part], [], Path("outputs/demo"))))
        demo: the run folder is outputs/demo; verbose=true shows what is in its run.log
        model: 10 parameters, 40 B; frozen: nothing
        trainable parameters: 10 (qformer); gradients and optimiser 120 B
    """
    frozen = _largest({part.name: part.parameters for part in parts if part.trainable == 0})
    trained = {part.name: part.trainable for part in parts if part.trainable}
    lines = [
        f"{recipe}: the run folder is {folder}; verbose=true shows what is in its {LINES}",
        f"model: {sum(part.parameters for part in parts):,} parameters, "
        f"{size_text(sum(part.weight_bytes for part in parts))}; frozen: {frozen or 'nothing'}",
        f"trainable parameters: {sum(trained.values()):,} ({_largest(trained)}); "
        f"gradients and optimiser {size_text(sum(part.training_bytes for part in parts))}",
    ]
    return [*lines, *(report.line() for report in reports)]


def weightless_line(objective: nn.Module) -> list[str]:
    """A line that names the losses whose weight is 0: they are logged like the others, and teach nothing."""
    settings = [name for name, value in vars(objective).items() if name in _WEIGHTS and value == 0]
    names = " and ".join(name.removesuffix("_weight").upper() for name in settings)
    given = ", ".join(f"objective.{name}=0" for name in settings)
    return [f"{names}: logged, and not trained ({given})"] if settings else []


def details(
    parts: Sequence[PartSize], groups: Sequence[ParameterGroup], reports: Sequence[LoadReport]
) -> list[RenderableType]:
    """Every part of the model, every group of the optimiser, and which tensors came from where."""
    shown: list[RenderableType] = [parts_table(parts)]
    for group in groups:
        count = sum(p.numel() for p in group.parameters)
        shown.append(f"optimiser group '{group.name}': {len(group.parameters)} tensors, {count:,} parameters")
    return [*shown, *(line for report in reports for line in report.lines())]


def _largest(counts: dict[str, int]) -> str:
    """Names of the largest parts, with their counts if they are several."""
    names = sorted(counts, key=lambda name: -counts[name])
    if len(names) == 1:
        return names[0]
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*(f"{name} {counts[name]:,}" for name in names[:_NAMED]), *more])
