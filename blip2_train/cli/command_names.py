"""What commands are called here: `python scripts/train.py` in a checkout, `blip2-train` where they are installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import blip2_train

INSTALLED = {
    "train": "blip2-train",
    "export": "blip2-export",
    "check": "blip2-check",
    "doctor": "blip2-doctor",
    "describe": "blip2-describe",
    "predict": "blip2-predict",
    "convert_checkpoint": "blip2-convert",
    "evaluate": "blip2-evaluate",
    "score": "blip2-score",
    "compare": "blip2-compare",
    "prepare": "blip2-prepare",
    "make_shards": "blip2-make-shards",
    "capfilt": "blip2-capfilt",
    "features": "blip2-features",
    "app": "blip2-app",
}
"""Name of each installed command by its file in `scripts/`."""
_SCRIPT = rf"(?:scripts/)?({'|'.join(INSTALLED)})\.py\b"
_TORCHRUN = re.compile(rf"(torchrun [^\n]*?) {_SCRIPT}")
_COMMAND = re.compile(rf"(?<![\w/.-])(?:python )?{_SCRIPT}")


def as_called(text: str) -> str:
    """A text of help or advice, with the commands' installed names if this process was started by one of them."""
    if not _started().startswith("blip2-"):
        return text
    text = _TORCHRUN.sub(lambda match: f"{match[1]} --no-python {INSTALLED[match[2]]}", text)
    return _COMMAND.sub(lambda match: INSTALLED[match[1]], text)


def version_line() -> str:
    """Name and version of the command, or of the package where it was not started by an installed one."""
    started = _started()
    return f"{started if started.startswith('blip2-') else blip2_train.__name__} {blip2_train.__version__}"


def _started() -> str:
    """What Python was started as."""
    return Path(sys.argv[0]).stem if sys.argv else ""
