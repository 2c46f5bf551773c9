"""Nucleus sampling with given random numbers: a text depends on its own image and numbers, on no other row.

Shape letters: R rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor


class NucleusSampling(LogitsProcessor):
    """Keeps in each row's scores only the token that its next random number selects; for one call of `generate`.

    Args:
        uniforms: `(R, ≥ T)`, float, in [0, 1): of each row a number for each new token.
        top_p: Share of the probability mass that is sampled from, likeliest tokens first.
        temperature: That scores are divided by.

    Source: nucleus sampling, Holtzman et al., 2019, arXiv:1904.09751, section 3.1.

    Example:
        >>> likely = torch.tensor([[0.5, 0.1, 0.4]]).log()
        >>> [NucleusSampling(torch.tensor([[u]]), top_p=0.8)(None, likely)[0].argmax().item() for u in (0.5, 0.6, 0.99)]
        [0, 2, 2]
    """

    def __init__(self, uniforms: Tensor, top_p: float = 1.0, temperature: float = 1.0) -> None:
        self._uniforms, self._top_p, self._temperature = uniforms, top_p, temperature
        self._step = 0

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Scores `(R, V)` with 0 at the sampled token and minus infinity elsewhere."""
        shares, tokens = (scores.float() / self._temperature).softmax(dim=1).sort(dim=1, descending=True, stable=True)
        mass = shares.cumsum(dim=1)
        last = (mass - shares < self._top_p).sum(dim=1, keepdim=True) - 1
        target = mass.gather(1, last) * self._uniforms[:, self._step, None]
        self._step += 1
        chosen = torch.minimum(torch.searchsorted(mass, target, right=True), last)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.gather(1, chosen), 0.0)
