"""A callback that warns while a run is shown."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from lightning.pytorch.callbacks import Callback

LOGGED = "shard 00017.tar: attempt 2 follows in 1.5 s, as the store did not answer within its timeout; all is well"
WARNED = (
    "a value is odd, and this is written in a line that is longer than most terminals of this world are wide, by much"
)


class Warns(Callback):
    """Logs and warns at the end of each batch."""

    def on_train_batch_end(self, *_: Any) -> None:
        logging.getLogger("blip2_train.noise").warning(LOGGED)
        sys.stderr.write(warnings.formatwarning(WARNED, UserWarning, "file.py", 1))  # as Python does
