"""Lays the real tokens of texts in one row, so that no layer computes padding.

Whatever a layer does with each position by itself (projections, layer norm, feed-forward, vocabulary head) it does with
the row; attention lays the row out again, with padding, because its products are a small part of the arithmetic. Shape
letters: R rows, Q queries, T text tokens, L = Q + T, N real tokens, S = R * Q + N positions of the row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the positions of a row `[all queries ; all real tokens]` stand in the sequences `[queries ; text]`."""

    tokens: Tensor
    """`(N,)`, int64: the real tokens' positions in the texts `(R, T)`, flattened."""
    positions: Tensor
    """`(S,)`, int64: all positions in the sequences `(R, L)`, flattened."""
    starts: Tensor
    """`(R,)`, int64: position of each text's first token among the N."""
    num_queries: int
    """Q."""
    text_length: int
    """T."""

    @property
    def num_rows(self) -> int:
        """R."""
        return self.starts.shape[0]

    def select(self, values: Tensor) -> Tensor:
        """What belongs to the real tokens, `(N, …)`, of values `(R, T, …)`."""
        return values.flatten(0, 1).index_select(0, self.tokens)

    def split(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """States `(R, Q, D)` of the queries and `(N, D)` of the tokens in a row `(S, D)`."""
        queries, text = row.split([self.num_rows * self.num_queries, self.tokens.shape[0]])
        return queries.unflatten(0, (self.num_rows, self.num_queries)), text

    def join(self, queries: Tensor, text: Tensor) -> Tensor:
        """The reverse of `split`."""
        return torch.cat([queries.flatten(0, 1), text])

    def pad(self, row: Tensor) -> Tensor:
        """`(S, D)` to sequences `(R, L, D)`, with zeros as padding."""
        length = self.num_queries + self.text_length
        padded = row.new_zeros(self.num_rows * length, row.shape[1]).index_copy_(0, self.positions, row)
        return padded.unflatten(0, (self.num_rows, length))

    def unpad(self, sequences: Tensor) -> Tensor:
        """`(R, L, D)` to `(S, D)`."""
        return sequences.flatten(0, 1).index_select(0, self.positions)

    def leading(self, row: Tensor) -> Tensor:
        """What comes first in each sequence, of a row `(S, D)`: the queries `(R, Q, D)`, or without any the first token
        `(R, 1, D)`.
        """
        return self.split(row)[0] if self.num_queries else row.index_select(0, self.starts)[:, None]


def pack(attention_mask: Tensor, num_queries: int = 0) -> Packing:
    """Where the real tokens of texts go.

    Args:
        attention_mask: `(R, T)`, bool, True = real token. A GPU is waited for once, because the number of real tokens
            decides shapes: that of negatives depends on which were sampled.
        num_queries: Queries Q in front of each text.
    """
    rows, length = attention_mask.shape
    tokens = real_tokens(attention_mask)
    queries = torch.arange(rows * num_queries, device=tokens.device)
    in_front = (tokens // max(length, 1) + 1) * num_queries
    positions = torch.cat([queries + queries // max(num_queries, 1) * length, tokens + in_front])
    starts = torch.searchsorted(tokens, torch.arange(rows, device=tokens.device) * length)
    return Packing(tokens, positions, starts, num_queries, length)


def real_tokens(attention_mask: Tensor) -> Tensor:
    """Positions `(N,)`, int64, of the real tokens in the flattened texts `(R, T)`.

    In tensors without values (the meta device; torch's fake tensors, a subclass) every position counts as real.
    """
    flat = attention_mask.flatten()
    if flat.is_meta or type(flat) is not Tensor:
        return torch.arange(len(flat), device=flat.device)
    return flat.nonzero()[:, 0]
