"""One measured comparison: this project's figure, the other's, their ratio, and the ratio to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = Literal["at most", "at least", "within"]
"""How a ratio is held against its target; `within`: no further from 1 than the target is."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A line of the table."""

    name: str
    """Key in the JSON."""
    what: str
    """What is compared, in a few words."""
    ours: str
    """This project's figure with its unit."""
    other: str
    """The other's figure with its unit, and what it is."""
    ratio: float
    target: float
    bound: Bound = "at most"

    @property
    def held(self) -> bool:
        """Whether the target is reached."""
        if self.bound == "within":
            return abs(self.ratio - 1.0) <= abs(self.target - 1.0)
        return self.ratio <= self.target if self.bound == "at most" else self.ratio >= self.target
