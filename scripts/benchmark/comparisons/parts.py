"""The comparisons there are: the module that measures each, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Part:
    """Comparisons that one module measures."""

    module: str
    """Its function `compare()` returns a list of `Comparison`."""
    names: tuple[str, ...]
    """Keys in the JSON."""
    seconds: float = 180.0
    """Time limit."""


PARTS: Mapping[str, Part] = {
    "beam": Part(module="benchmark.comparisons.beam", names=("beam_flops", "beam_time"), seconds=600),
    "reading": Part(module="benchmark.comparisons.reading", names=("jpeg_640", "jpeg_1024"), seconds=120),
    "padding": Part(module="benchmark.comparisons.padding", names=("padding_stage2",), seconds=120),
    "first_run": Part(module="benchmark.comparisons.first_run", names=("first_run_vs_second",)),
    "retrieval": Part(
        module="benchmark.comparisons.retrieval", names=("retrieval_flops_vs_released", "shortlist_speed"), seconds=240
    ),
    "stage1": Part(
        module="benchmark.comparisons.stage1",
        names=(
            "packed_flops_web",
            "packed_flops_coco",
            "packed_time",
            "checkpointed_bytes",
            "stage1_flops_vs_released_web",
            "stage1_flops_vs_released_coco",
            "stage1_time_vs_released_coco",
        ),
        seconds=600,
    ),
    "memory": Part(
        module="benchmark.comparisons.memory", names=("stage2_bytes_vs_released", "memory_prediction"), seconds=300
    ),
    "exchange": Part(module="benchmark.comparisons.exchange", names=("exchange_rows",), seconds=120),
    "contrast": Part(module="benchmark.comparisons.contrast", names=("contrast_extra_flops",), seconds=240),
    "features": Part(module="benchmark.comparisons.features", names=("features_flops", "features_speed"), seconds=400),
    "startup": Part(
        module="benchmark.comparisons.startup", names=("help_heavy_imports", "cfg_vs_import_torch"), seconds=240
    ),
}
"""By the part's own name, in the order in which they are run."""
