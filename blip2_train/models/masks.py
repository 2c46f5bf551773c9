"""The attention masks of BLIP-2's three objectives (Li et al., 2023, figure 2); True = may attend.

Shape letters: B batch, Q queries, T text tokens.

| objective | mask | queries see | text sees |
| --- | --- | --- | --- |
| ITC | unimodal | queries | text, both ways |
| ITM | bidirectional | queries and text | queries and text |
| ITG | multimodal causal | queries | queries, and text up to itself |

No token attends to padding; the outputs at padding are never used.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unimodal(attention_mask: Tensor) -> Tensor:
    """Mask of the text pass: every token sees every real token.

    Args:
        attention_mask: `(B, T)`, bool, True = real token.

    Returns:
        `(B, 1, 1, T)`, bool, to be broadcast over heads and rows.
    """
    return attention_mask[:, None, None, :]


def bidirectional(attention_mask: Tensor, num_queries: int) -> Tensor:
    """Mask of the matching pass over `[queries ; text]`: everything sees queries and real tokens.

    Args:
        attention_mask: `(B, T)`, bool, True = real token.
        num_queries: Q.

    Returns:
        `(B, 1, 1, Q + T)`, bool.
    """
    queries = attention_mask.new_ones(attention_mask.shape[0], num_queries)
    return torch.cat([queries, attention_mask], dim=1)[:, None, None, :]


def multimodal_causal(attention_mask: Tensor, num_queries: int) -> Tensor:
    """Rows of the text in the generation mask: all queries, and real tokens up to oneself.

    The rows of the queries are missing because the queries see only themselves: their part of the pass is the image
    pass, whose keys and values are reused.

    Args:
        attention_mask: `(B, T)`, bool, True = real token.
        num_queries: Q.

    Returns:
        `(B, 1, T, Q + T)`, bool.
    """
    batch, length = attention_mask.shape
    causal = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()
    text = causal[None] & attention_mask[:, None, :]
    queries = attention_mask.new_ones(batch, length, num_queries)
    return torch.cat([queries, text], dim=2)[:, None]
