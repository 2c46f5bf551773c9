"""Shows how far a preparation is and how fast: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from blip2_train.cli.predict_output import Bar

_LINE_EVERY = 20.0
"""Seconds between lines of progress where there is no terminal."""


class ShownProgress:
    """Takes what is going on, how many samples are done, and how many there are."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        """Samples a second of each phase, what was done before this start left out."""
        self._phase = ""
        self._bar: Bar | None = None
        self._last_line = time.monotonic()
        self._began, self._first = 0.0, 0

    def __enter__(self) -> ShownProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` samples have passed a phase."""
        if phase != self._phase:
            self._close()
            self._phase, self._bar = phase, Bar(total, hidden=False, name=phase)
            self._bar.__enter__()
            self._began, self._first = time.monotonic(), done
        assert self._bar is not None
        if done > self._first:
            self.rates[phase] = (done - self._first) / max(time.monotonic() - self._began, 1e-9)
        rate = self.rates.get(phase)
        self._bar.at(done, total, rate)
        if self._bar.progress.disable and time.monotonic() - self._last_line >= _LINE_EVERY:
            left = (
                ""
                if rate is None
                else f", {rate:,.1f} a second, {timedelta(seconds=round((total - done) / rate))} left"
            )
            print(f"{phase}: {done:,} of {total:,} samples{left}", file=sys.stderr, flush=True)
            self._last_line = time.monotonic()
        if done == total:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None
