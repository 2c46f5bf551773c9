"""Shows how far a long command is and how fast, phase by phase: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time

from blip2_train.cli.json_lines import Bar

_SETTLED = 5.0
"""Seconds after the first results from which on what came before them does not count: models were opened."""


class PhaseProgress:
    """Takes what is going on, how much is done, and how much there is.

    Args:
        unit: Of what is counted.
        hidden: Whether nothing is shown: by all processes but the first.
    """

    def __init__(self, unit: str = "samples", hidden: bool = False) -> None:
        self._unit, self._hidden = unit, hidden
        self.rates: dict[str, float] = {}
        """How many a second in each phase; neither what was done before this start nor, in longer ones, setting up."""
        self._phase = ""
        self._bar: Bar | None = None
        self._last_line = time.monotonic()
        self._began: list[tuple[float, int]] = []
        """Time and samples done at the start of the phase, then at its first results."""

    def __enter__(self) -> PhaseProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` have passed a phase."""
        if phase != self._phase or self._bar is None:
            self._close()
            self._phase = phase
            self._bar = Bar(total, hidden=self._hidden, name=phase, unit=self._unit, last_line=self._last_line)
            self._bar.__enter__()
            self._began = [(time.monotonic(), done)]
        assert self._bar is not None
        if done > self._began[0][1]:
            self._count(phase, time.monotonic(), done)
        self._bar.at(done, total, self.rates.get(phase))
        if done == total:
            self._close()

    def _count(self, phase: str, now: float, done: int) -> None:
        if len(self._began) == 1:
            self._began.append((now, done))
        since, first = self._began[1]
        if done == first or now - since < _SETTLED:
            since, first = self._began[0]
        self.rates[phase] = (done - first) / max(now - since, 1e-9)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._last_line = self._bar.last_line
            self._bar = None
