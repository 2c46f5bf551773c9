"""Image-text matching (ITM): classify pairs of an image with its own caption and with a hard negative.

Shape letters: B batch per process, N over all processes, R = 3B rows of pairs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

NegativeSampling = Literal["masked", "floor", "uniform"]
CHANCE = 0.6365
"""Loss of a constant predictor with one match among three pairs: the entropy of (1/3, 2/3), nats."""


def sample_hard_negatives(
    logits: Tensor, forbidden: Tensor, uniforms: Tensor, variant: NegativeSampling = "masked"
) -> tuple[Tensor, Tensor]:
    """Sample one negative per row, a hard one: in proportion to the softmax of its similarities.

    Args:
        logits: `(B, N)` similarities divided by the temperature.
        forbidden: `(B, N)`, bool, True where the column is the row's own image or text and must never be sampled.
        uniforms: `(B,)`, float64 (or float32 where there is no other) in [0, 1): one random number per row. Sampling
            inverts the cumulative weights, so the same numbers give the same negatives however the rows are spread
            over processes.
        variant: `masked` removes the forbidden columns before the softmax (released code since July 2023); `floor`
            adds 1e-4 after the softmax and then removes them (released code when the paper was written); `uniform`
            takes any allowed column, so that negatives are not hard (docs/experiments.md says what that does).

    Returns:
        Columns `(B,)`, int64, and `(B,)`, bool: whether the row had any column to sample. Where not, the column is
        arbitrary and the row must not be used.

    Source: BLIP-2, section 3.2, "Image-Text Matching", and its released code.

    Example:
        >>> similar = torch.tensor([[9.0, 5.0, -9.0]])
        >>> half = torch.tensor([0.5], dtype=torch.float64)
        >>> sample_hard_negatives(similar, torch.tensor([[True, False, False]]), half)
        (tensor([1]), tensor([True]))
    """
    logits = logits.detach().to(uniforms.dtype)
    if variant == "floor":
        weights = (logits.softmax(dim=1) + 1e-4).masked_fill(forbidden, 0.0)
    elif variant == "uniform":
        weights = (~forbidden).to(logits.dtype)
    else:
        weights = logits.masked_fill(forbidden, -torch.inf).softmax(dim=1).nan_to_num(0.0)
    cumulative = weights.cumsum(dim=1)
    total = cumulative[:, -1:]
    target = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    columns = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    return columns.clamp_max(logits.shape[1] - 1), ~forbidden.all(dim=1)


def matching_labels(matches: int, mismatches: int, device: torch.device) -> Tensor:
    """Labels of pairs, the matching ones first.

    Example:
        >>> matching_labels(1, 2, torch.device("cpu"))
        tensor([1, 0, 0])
    """
    labels = torch.zeros(matches + mismatches, dtype=torch.int64, device=device)
    labels[:matches] = 1
    return labels


def matching_loss(logits: Tensor, labels: Tensor, weights: Tensor, mean_weight: Tensor) -> Tensor:
    """Cross-entropy of the pairs in use.

    Args:
        logits: `(R, 2)`; column 1 = match.
        labels: `(R,)`, int64.
        weights: `(R,)`, float, 0 for pairs that are not in use (no valid negative), else 1.
        mean_weight: Scalar: number of pairs in use per process, averaged over processes; so the mean over processes is
            the mean over all pairs in use.

    Returns:
        Scalar, nats per pair. Chance is 0.6365.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * weights).sum() / mean_weight.clamp_min(1e-12)
