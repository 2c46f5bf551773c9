"""Next-token loss of text given images; the shift of the labels lives here and nowhere else.

Shape letters: B batch, T text tokens, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def count_targets(attention_mask: Tensor) -> Tensor:
    """Number of tokens that are predicted: every real token but the first of each text. Scalar, float.

    Example:
        >>> import torch
        >>> count_targets(torch.tensor([[True, True, True], [True, True, False]]))
        tensor(3.)
    """
    return attention_mask[:, 1:].sum().float()


def next_token_loss(
    logits: Tensor, input_ids: Tensor, attention_mask: Tensor, mean_count: Tensor, label_smoothing: float
) -> Tensor:
    """Cross-entropy of each real token given those before it.

    Args:
        logits: `(B, T, V)`; position t predicts token t + 1.
        input_ids: `(B, T)`, int64; the first token is never a target.
        attention_mask: `(B, T)`, bool, True = real token.
        mean_count: Scalar: number of targets per process, averaged over processes, so that the mean over processes is
            the mean over all targets. (The released code averages within each process.)
        label_smoothing: Share of the mass that is spread over the vocabulary.

    Returns:
        Scalar, nats per token. Chance is ln V.
    """
    targets = input_ids[:, 1:].masked_fill(~attention_mask[:, 1:], -100)
    total = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float() if logits.dtype.itemsize < 4 else logits[:, :-1].flatten(0, 1),
        targets.flatten(),
        ignore_index=-100,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / mean_count.clamp_min(1.0)
