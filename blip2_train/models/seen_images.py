"""Images as far as a generative model reads them before a question is known, so that each is encoded once for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_train.types import ImageKeyValues


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """M images; Q queries, D hidden size."""

    image_kv: ImageKeyValues | None
    """What the queries read, where the Q-Former reads questions beside them."""
    states: Tensor | None
    """`(M, Q, D)`: the Q-Former's output, where it does not."""

    def __len__(self) -> int:
        if self.image_kv is not None:
            return len(self.image_kv)
        assert self.states is not None
        return len(self.states)

    def select(self, rows: Tensor) -> SeenImages:
        """The images at `rows` `(R,)`, int64."""
        return SeenImages(
            image_kv=None if self.image_kv is None else self.image_kv.select(rows),
            states=None if self.states is None else self.states[rows],
        )


def joined(parts: Sequence[SeenImages]) -> SeenImages:
    """Images seen by the same model as one, in their order."""
    first = parts[0]
    states, image_kv = None, None
    if first.states is not None:
        states = torch.cat([part.states for part in parts if part.states is not None])
    if first.image_kv is not None:
        kvs = [part.image_kv for part in parts if part.image_kv is not None]
        image_kv = ImageKeyValues(
            keys=tuple(torch.cat(layer) for layer in zip(*(kv.keys for kv in kvs), strict=True)),
            values=tuple(torch.cat(layer) for layer in zip(*(kv.values for kv in kvs), strict=True)),
        )
    return SeenImages(image_kv=image_kv, states=states)
