"""A callback that notes which files have code that runs in the second step. It imports nothing of the package."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback


class SecondStep(Callback):
    """Watches from the end of the first step, after which its batch is asked for, to the end of the second.

    Args:
        package: Folder of the package.
        record: Where the list of files is written.
    """

    def __init__(self, package: str, record: str) -> None:
        self._package, self._record = Path(package), Path(record)
        self._files: set[str] = set()

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Begin after the first step, end after the second."""
        self._profile(self._note if trainer.global_step == 1 else None)
        if trainer.global_step == 2:
            below = [Path(name) for name in self._files if Path(name).is_relative_to(self._package)]
            self._record.write_text(json.dumps(sorted(path.relative_to(self._package).as_posix() for path in below)))

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._files.add(frame.f_code.co_filename)

    @staticmethod
    def _profile(function: Any) -> None:
        threading.setprofile(function)
        sys.setprofile(function)
