"""The parts of a visit in the order of their worth: a visit that is cut short has the first ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that is measured in a process of its own."""

    module: str
    """Its `measure(options, add)` calls `add` with each row as soon as it has it."""
    about: str
    """What it shows."""
    seconds: float
    """Time limit on a GPU, seconds; all of them together are nine minutes."""
    extra: tuple[str, ...] = ()
    """Optional packages that this part alone sees, so that one that does not fit the torch there spoils no other."""


PARTS: Mapping[str, Part] = {
    "facts": Part(module="gpu_visit.facts", about="the machine, and what it can do at best", seconds=50),
    "stage1": Part(module="gpu_visit.stage1", about="stage 1 beside the released plan", seconds=110),
    "attention": Part(module="gpu_visit.attention", about="which attention kernel runs for each shape", seconds=65),
    "tests": Part(module="gpu_visit.tests", about="the tests marked gpu", seconds=85),
    "stage2": Part(module="gpu_visit.stage2", about="stage 2 beside transformers", seconds=75),
    "beams": Part(module="gpu_visit.beams", about="beam search beside transformers", seconds=50),
    "loader": Part(module="gpu_visit.loader", about="the loader feeding the device", seconds=45, extra=("simplejpeg",)),
    "towers": Part(module="gpu_visit.towers", about="the compiled and the 8-bit tower", seconds=60, extra=("torchao",)),
}
"""By name."""
