"""Shows how far a long command is and how fast, phase by phase: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from blip2_train.system.live_bar import LiveBar
from blip2_train.system.screen import LINE_EVERY, echo, make_console
from blip2_train.system.tables import rate as speed

_SETTLED = 5.0
"""Seconds after the first results from which on what came before them does not count: models were opened."""


class Bar:
    """A progress bar on standard error, or a line now and then where that is no terminal.

    Args:
        total: Number of images or texts; None = not known.
        hidden: Whether the lines of the results, on the same terminal, show the progress already.
        name: What is going on.
        unit: Of what is counted, for the lines.
        last_line: When the last line was printed, by `time.monotonic`; None = now.
    """

    def __init__(
        self,
        total: int | None,
        hidden: bool,
        name: str = "predict",
        unit: str = "",
        last_line: float | None = None,
    ) -> None:
        console = make_console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._in_lines = not hidden and not console.is_terminal
        self.last_line = time.monotonic() if last_line is None else last_line
        """When a line was printed last."""
        self.progress = LiveBar(*columns, *times, console=console, disable=hidden or self._in_lines)
        self.task = self.progress.add_task(name, total=total)
        self._name, self._unit = name, unit and f" {unit}"

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, count: int) -> None:
        """Move on by `count`."""
        self.progress.advance(self.task, count)
        task = self.progress.tasks[self.task]
        self._line(int(task.completed), None if task.total is None else int(task.total), None)

    def at(self, done: int, total: int, rate: float | None = None) -> None:
        """Show that `done` of `total` are finished, and how many in a second."""
        name = self._name if rate is None else f"{self._name}, {speed(rate)} a second"
        self.progress.update(self.task, completed=done, total=total, description=name)
        self._line(done, total, rate)

    def _line(self, done: int, total: int | None, rate: float | None) -> None:
        """Print a line if there is no bar, and the last one is old."""
        if not self._in_lines or time.monotonic() - self.last_line < LINE_EVERY:
            return
        of, left = "" if total is None else f" of {total:,}", ""
        if rate is not None and total is not None:
            left = f", {speed(rate)} a second, {timedelta(seconds=round((total - done) / rate))} left"
        echo(f"{self._name}: {done:,}{of}{self._unit}{left}", file=sys.stderr, flush=True)
        self.last_line = time.monotonic()


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
