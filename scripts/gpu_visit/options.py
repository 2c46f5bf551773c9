"""Settings of a visit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKED = ROOT / "outputs" / "gpu_visit" / "packed"
"""Where `pack` puts wheels; ignored by git, as all of `outputs/`."""


class OptionError(Exception):
    """A setting that cannot be used; the message is for the reader."""


@dataclass(frozen=True, kw_only=True)
class VisitOptions:
    """What is visited and how."""

    device: str = "cuda"
    """`cuda` or `cpu`."""
    size: str = "full"
    """`full`: the paper's models; `small`: the demo's, to rehearse."""
    parts: str = ""
    """Names with commas between them; empty = all."""
    out: str = str(ROOT / "outputs" / "gpu_visit")
    """Folder of the results: visit.json, visit.md, visit.log."""
    packed: str = str(PACKED)
    """Folder with the wheels of `pack`."""
    minutes: str = "9"
    """Time limit of the whole visit."""

    def __post_init__(self) -> None:
        for name, allowed in (("device", ("cuda", "cpu")), ("size", ("full", "small"))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"{name}={getattr(self, name)} is unknown; use {' or '.join(allowed)}")
        try:
            minutes = float(self.minutes)
        except ValueError:
            minutes = math.nan
        if not (math.isfinite(minutes) and minutes > 0):
            raise OptionError(f"minutes={self.minutes}: give a number of minutes above 0")

    @property
    def small(self) -> bool:
        """Whether the demo's models are measured."""
        return self.size == "small"


def read_options(arguments: Sequence[str]) -> VisitOptions:
    """The settings of a command line.

    Raises:
        OptionError: if one is unknown or cannot be used.
    """
    known = [field.name for field in fields(VisitOptions)]
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in known:
            raise OptionError(f"{argument}: write <setting>=<value>, of {', '.join(known)}")
        given[name] = value
    return VisitOptions(**given)


def as_arguments(options: VisitOptions) -> list[str]:
    """The command line of the same settings."""
    return [f"{name}={value}" for name, value in _values(options).items()]


def _values(options: VisitOptions) -> Mapping[str, str]:
    return {field.name: getattr(options, field.name) for field in fields(options)}
