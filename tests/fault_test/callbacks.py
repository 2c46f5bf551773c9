"""A callback by which a training of the fault test gets a signal at a moment that cannot be seen from outside."""

from __future__ import annotations

import os
import signal as signals
import subprocess
from typing import Any

from lightning.pytorch.callbacks import Callback


class Send(Callback):
    """Sends a signal to the process's whole group, once, from outside, when a hook is called."""

    def __init__(self, hook: str, signal: int) -> None:
        self._signal: int | None = signals.Signals(signal)
        setattr(self, hook, self._send)

    def _send(self, *_: Any, **__: Any) -> None:
        if self._signal is not None:
            subprocess.run(["bash", "-c", f"kill -{int(self._signal)} -- -{os.getpgrp()}"], check=False)
            self._signal = None
