"""Prints what a run is before it starts, and its results at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from blip2_train.checkpoints.load_rules import LoadReport
from blip2_train.cli.part_sizes import parts_table
from blip2_train.data.sequential.plan import SequentialPlan
from blip2_train.data.stream.plan import DataPlan
from blip2_train.models.freezing import PartSize
from blip2_train.optim.param_groups import ParameterGroup
from blip2_train.system.screen import make_console
from blip2_train.training.lifecycle import first_process_only

_LABELS = {
    "loss_itc": "ITC, contrast",
    "loss_itm": "ITM, matching",
    "loss_itg": "ITG, generation",
    "loss_lm": "language modelling",
}
_CAPTION_ROWS = (
    ("cider", "CIDEr of captions (1.0 = the papers' 100)", 3),
    ("vqa/accuracy", "VQA accuracy (%)", 1),
    ("names_right", "captions that name all images rightly (%)", 1),
)


@first_process_only
def print_line(text: str) -> None:
    """One line, from the first process only."""
    make_console().print(text, highlight=False, soft_wrap=True)


@first_process_only
def print_start(
    parts: Sequence[PartSize], groups: Sequence[ParameterGroup], reports: Sequence[LoadReport], folder: Path
) -> None:
    """What is frozen, what trains, what it started from, and where the run writes."""
    console = make_console()
    console.print(parts_table(parts))
    console.print(f"trainable parameters: {sum(p.trainable for p in parts):,}", highlight=False)
    for group in groups:
        count = sum(p.numel() for p in group.parameters)
        print_line(f"optimiser group '{group.name}': {len(group.parameters)} tensors, {count:,} parameters")
    for report in reports:
        for line in report.lines():
            print_line(line)
    print_line(f"run folder: {folder}")


@first_process_only
def print_results(
    results: dict[str, float], chance: dict[str, float], rejections: str, paths: dict[str, Path | None]
) -> None:
    """The end of a run: a table of results, and where everything lies."""
    console = make_console()
    table = Table(title="results", title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column in ("", "train", "held-out", "chance"):
        table.add_column(column, justify="left" if not column else "right")
    for name, level in chance.items():
        held_out = level if name != "loss_itc" else results.get("chance/val_loss_itc", level)
        table.add_row(
            f"{_LABELS.get(name, name)} (nats)",
            _number(results.get(f"train/{name}"), 3),
            _number(results.get(f"val/{name}"), 3),
            f"{level:.3f}" if held_out == level else f"{level:.3f} / {held_out:.3f}",
        )
    pairs = results.get("val/pairs")
    for direction in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            if (value := results.get(f"val/{direction}_r{k}")) is not None and pairs:
                label = direction.replace("_to_", "→")
                table.add_row(f"{label} R@{k} (%)", "", f"{value:.1f}", f"{100 * min(1.0, k / pairs):.1f}")
    for name, label in (("match", "matches"), ("mismatch", "mismatches")):
        if (value := results.get(f"val/itm_accuracy_{name}")) is not None:
            table.add_row(f"ITM right on {label} (%)", "", f"{value:.1f}", "")
    for key, label, digits in _CAPTION_ROWS:
        if (value := results.get(f"val/{key}")) is not None:
            table.add_row(label, _number(results.get(f"train/{key}"), digits), _number(value, digits), "")
    console.print(table)
    print_line(
        f"{results['steps']:.0f} steps, {results['samples_per_second']:.0f} samples/s, {results['seconds']:.0f} s"
    )
    if results.get("rejected_samples"):
        print_line(f"rejected samples: {rejections}")
    for label, path in paths.items():
        if path is not None:
            print_line(f"{label + ':':12}{path}")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@first_process_only
def print_plan(plan: DataPlan | SequentialPlan) -> None:
    """What the run will read."""
    for line in plan.lines():
        print_line(line)
