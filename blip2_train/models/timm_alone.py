"""timm without wandb, which it would load for a writer of tables that nothing here uses, in two thirds of a second."""

from __future__ import annotations

import sys

__all__ = ["timm"]

_loaded = "wandb" in sys.modules
if not _loaded:
    sys.modules["wandb"] = None  # type: ignore[assignment]  # to timm it is not installed
try:
    import timm
finally:
    if not _loaded:
        del sys.modules["wandb"]
