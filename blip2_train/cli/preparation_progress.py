"""Shows how far a preparation is and how fast: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from blip2_train.cli.json_lines import Bar
from blip2_train.system.screen import echo

_LINE_EVERY = 20.0
"""Seconds between lines of progress where there is no terminal."""
_SETTLED = 5.0
"""Seconds after the first results from which on what came before them does not count: models were opened."""


class PreparationProgress:
    """Takes what is going on, how many samples are done, and how many there are."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        """Samples a second of each phase; neither what was done before this start nor, in longer ones, setting up."""
        self._phase = ""
        self._bar: Bar | None = None
        self._last_line = time.monotonic()
        self._began: list[tuple[float, int]] = []
        """Time and samples done at the start of the phase, then at its first results."""

    def __enter__(self) -> PreparationProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` samples have passed a phase."""
        if phase != self._phase:
            self._close()
            self._phase, self._bar = phase, Bar(total, hidden=False, name=phase)
            self._bar.__enter__()
            self._began = [(time.monotonic(), done)]
        assert self._bar is not None
        if done > self._began[0][1]:
            self._count(phase, time.monotonic(), done)
        rate = self.rates.get(phase)
        self._bar.at(done, total, rate)
        if self._bar.progress.disable and time.monotonic() - self._last_line >= _LINE_EVERY:
            left = (
                ""
                if rate is None
                else f", {rate:,.1f} a second, {timedelta(seconds=round((total - done) / rate))} left"
            )
            echo(f"{phase}: {done:,} of {total:,} samples{left}", file=sys.stderr, flush=True)
            self._last_line = time.monotonic()
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
            self._bar = None
