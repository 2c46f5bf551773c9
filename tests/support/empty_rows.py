"""Finds attention masks with a row that may attend to nothing, for which a kernel may answer NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class EmptyRows(TorchFunctionMode):
    """Counts, while it is entered, passes with a mask, and rows without a key that may be attended to.

    Attention outside `scaled_dot_product_attention` is seen by its softmax.
    """

    def __init__(self) -> None:
        super().__init__()
        self.masks, self.rows = 0, 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._count(kwargs.get("attn_mask", args[3] if len(args) > 3 else None))
        elif func in (F.softmax, torch.softmax, Tensor.softmax) and args[0].ndim == 4:
            self._count(args[0])
        return func(*args, **kwargs)

    def _count(self, mask: Tensor | None) -> None:
        if mask is not None:
            visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            self.masks += 1
            self.rows += int((~visible.any(dim=-1)).sum())
