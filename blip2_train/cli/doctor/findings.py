"""What an examination finds: all well, worth knowing, or to be mended before a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from blip2_train.errors import Blip2TrainError

OK, SKIPPED, WARNING, PROBLEM = "ok", "skipped", "warning", "problem"
LEVELS = (OK, SKIPPED, WARNING, PROBLEM)
"""From the best to the worst."""

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    level: str
    """One of `LEVELS`."""
    text: str
    """The thing and its figures; of a warning or a problem also the fix."""


@dataclass(frozen=True)
class Examination:
    """Everything that was found of one matter."""

    title: str
    findings: Sequence[Finding]

    @property
    def level(self) -> str:
        """The worst that was found."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default=OK)

    @property
    def problems(self) -> list[str]:
        """Texts of the problems."""
        return [finding.text for finding in self.findings if finding.level == PROBLEM]


def attempt(findings: list[Finding], act: Callable[[], T]) -> T | None:
    """What `act` returns; None if it fails, and then a problem is added to `findings`.

    With BLIP2_TRACEBACK=1 the error is raised, so that its traceback is shown.
    """
    try:
        return act()
    except Exception as error:
        if os.environ.get("BLIP2_TRACEBACK") == "1":
            raise
        text = " ".join(str(error).split())
        if not isinstance(error, Blip2TrainError):
            text = f"{type(error).__name__}: {text[:200]}; BLIP2_TRACEBACK=1 shows where it comes from"
        findings.append(Finding(PROBLEM, text))
        return None
