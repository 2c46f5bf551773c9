"""timm without wandb, which it would load for a writer of tables that nothing here uses, in two thirds of a second."""

from __future__ import annotations

import sys

__all__ = ["get_pretrained_cfg", "resolve_data_config", "timm"]

_loaded = "wandb" in sys.modules
if not _loaded:
    sys.modules["wandb"] = None  # type: ignore[assignment]  # to timm it is not installed
try:
    import timm
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg
finally:
    if not _loaded:
        del sys.modules["wandb"]
