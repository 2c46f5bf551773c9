"""What goes wrong in a call, as one line for the page."""

from __future__ import annotations

import logging

import torch

from blip2_train.errors import Blip2TrainError
from blip2_train.system.screen import in_one_line, printable

logger = logging.getLogger(__name__)


def refusal(error: Exception) -> str:
    """The line for an error; one that is no fault of the reader's input is logged with its traceback, too."""
    if isinstance(error, Blip2TrainError):
        line = str(error)
    elif isinstance(error, torch.OutOfMemoryError):
        line = "the device has too little memory for this; start the app with --device cpu, or choose a smaller model"
    elif isinstance(error, OSError) and error.strerror:
        line = f"{error.filename or 'a file'}: {error.strerror}"
    else:
        logger.error("a call of the page failed", exc_info=error)
        line = f"this is a fault of the app ({type(error).__name__}: {error}); the terminal shows where"
    return in_one_line(printable(line))
