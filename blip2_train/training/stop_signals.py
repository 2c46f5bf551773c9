"""Hears the signals by which a machine asks a run to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from blip2_train.distributed import largest_over_processes

ASKING = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM: a machine or a person ends the run. SIGUSR1: a scheduler takes the machine away, and gives one later."""


class StopSignals:
    """Remembers that a signal came, so that a step can be finished first."""

    def __init__(self) -> None:
        self._heard = 0

    def listen(self) -> None:
        """Hear signals from now on, in place of whoever heard them (Lightning's trainer, which gives them back).

        Lightning would answer SIGTERM from inside the handler with a collective, for which the other processes do not
        wait, and SIGUSR1 under SLURM with a checkpoint of half a step.
        """
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                signal.signal(number, self._hear)

    def agreed(self) -> int:
        """The signal that any process has heard, SIGTERM before SIGUSR1; 0 for none. Every process must call it."""
        return largest_over_processes(self._heard)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = max(self._heard, int(number))
