"""The parts of a model with their sizes, as a table, and bytes as text; loads neither transformers nor Lightning."""

from __future__ import annotations

from collections.abc import Sequence

from blip2_train.models.freezing import PartSize
from blip2_train.system.tables import NumbersTable


def parts_table(parts: Sequence[PartSize]) -> NumbersTable:
    """Parameters and memory of a model, part by part."""
    note = "training = gradients and AdamW's two moments; activations come on top"
    table = NumbersTable(("part", "parameters", "", "weights", "training"), title="model", texts=[2], note=note)
    for part in parts:
        state = "frozen" if part.trainable == 0 else "trains" if part.trainable == part.parameters else "partly frozen"
        table.add_row(
            part.name, f"{part.parameters:,}", state, size_text(part.weight_bytes), size_text(part.training_bytes)
        )
    table.add_row(
        "all",
        f"{sum(p.parameters for p in parts):,}",
        "",
        size_text(sum(p.weight_bytes for p in parts)),
        size_text(sum(p.training_bytes for p in parts)),
    )
    return table


def size_text(count: int) -> str:
    """Bytes for a person, in units of 2^10: `1.8 GiB`."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"
