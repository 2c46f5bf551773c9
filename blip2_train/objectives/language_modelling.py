"""Next-token loss of text given images; the shift of the labels lives here and nowhere else.

Shape letters: B batch, T text tokens, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def count_targets(attention_mask: Tensor) -> Tensor:
    """Number N of tokens that are predicted: every real token but the first of each text. Scalar, float.

    Example:
        >>> import torch
        >>> count_targets(torch.tensor([[True, True, True], [True, True, False]]))
        tensor(3.)
    """
    return attention_mask[:, 1:].sum().float()


def predicting_tokens(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """What a model reads to predict the others: every real token but the last of each text, which predicts nothing.

    Args:
        input_ids: `(B, T)`, int64, padded on the right.
        attention_mask: `(B, T)`, bool, True = real token.

    Returns:
        Tokens `(B, T - 1)`, and where they are real, `(B, T - 1)`, bool: N in all.

    Example:
        >>> import torch
        >>> ids, mask = torch.tensor([[7, 8, 9], [7, 8, 0]]), torch.tensor([[True, True, True], [True, True, False]])
        >>> [part.tolist() for part in predicting_tokens(ids, mask)]
        [[[7, 8], [7, 8]], [[True, True], [True, False]]]
    """
    return input_ids[:, :-1], attention_mask[:, 1:]


def next_token_loss(
    logits: Tensor, input_ids: Tensor, attention_mask: Tensor, mean_count: Tensor, label_smoothing: float
) -> Tensor:
    """Cross-entropy of each real token given those before it.

    Args:
        logits: `(N, V)`, of what follows each of the `predicting_tokens`, text by text.
        input_ids: `(B, T)`, int64; the first token is never a target.
        attention_mask: `(B, T)`, bool, True = real token.
        mean_count: Scalar: number of targets per process, averaged over processes, so that the mean over processes is
            the mean over all targets. (The released code averages within each process.)
        label_smoothing: Share of the mass that is spread over the vocabulary.

    Returns:
        Scalar, nats per token. Chance is ln V.
    """
    padding = ~attention_mask[:, 1:].flatten()
    real_first = padding.byte().argsort(stable=True)[: len(logits)]  # N is known: a GPU need not be waited for
    targets = input_ids[:, 1:].flatten().index_select(0, real_first)
    total = F.cross_entropy(
        logits.float() if logits.dtype.itemsize < 4 else logits,
        targets,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / mean_count.clamp_min(1.0)
