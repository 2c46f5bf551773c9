"""Multi-head attention of the Q-Former, by `scaled_dot_product_attention` throughout.

Parameter names follow transformers' BLIP-2 (`attention.query`, `output.dense`, `output.LayerNorm`), so that weights
convert without a map. Shape letters: R rows, L tokens, D hidden size, H heads, M images, P patches; S positions of a
row of real tokens (`packing`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_train.models.adapted_layers import adapted_weight
from blip2_train.models.packing import Packing
from blip2_train.types import ImageKeyValues


class Projections(nn.Module):
    """The query, key and value projections."""

    def __init__(self, hidden_size: int, source_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(source_size, hidden_size)
        self.value = nn.Linear(source_size, hidden_size)


class ResidualOutput(nn.Module):
    """Projection, dropout, residual and layer norm (post-norm, as in BERT)."""

    def __init__(self, input_size: int, hidden_size: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        """`(…, input)` and `(…, D)` to `(…, D)`."""
        normed: Tensor = self.LayerNorm(residual + self.dropout(self.dense(states)))
        return normed


class Attention(nn.Module):
    """Self-attention, or attention of the queries to images, with its residual output."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        source_size: int,
        dropout: float,
        attention_dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.attention = Projections(hidden_size, source_size)
        self.output = ResidualOutput(hidden_size, hidden_size, dropout, eps)

    def split_heads(self, states: Tensor) -> Tensor:
        """`(R, L, D)` to `(R, H, L, D/H)`."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of `(R, H, L, D/H)` queries; `mask` is broadcastable to `(R, H, L, keys)`, True = may attend."""
        dropout = self.attention_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)

    def self_attention(
        self,
        states: Tensor,
        mask: Tensor | None,
        cache: tuple[Tensor, Tensor] | None = None,
        leading: int | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attention of a sequence to itself, and to cached tokens in front of it.

        Args:
            states: `(R, L, D)`; with `packing` `(S, D)`.
            mask: Broadcastable to `(R, H, W, C + L)` with C cached tokens, True = may attend; None = everything may.
            cache: Keys and values of C tokens in front, each `(R, H, C, D/H)`.
            leading: Number W of tokens, from the first, whose new states are computed; None = all L.
            packing: Where the row's positions stand in the sequences; W is then Q, or 1 where there are no queries.

        Returns:
            New states `(R, W, D)`, with `packing` and W = L `(S, D)`, and this sequence's own keys and values, each
            `(R, H, L, D/H)`.
        """
        asking = states
        if leading is not None:
            asking = states[:, :leading] if packing is None else packing.leading(states)
        query, key, value = self.attention.query(asking), self.attention.key(states), self.attention.value(states)
        if packing is not None:
            query = packing.pad(query) if leading is None else query
            key, value = packing.pad(key), packing.pad(value)
        query = self.split_heads(query)
        own = key, value = self.split_heads(key), self.split_heads(value)
        if cache is not None:
            key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        context = self.attend(query, key, value, mask).transpose(1, 2).flatten(2)
        if packing is not None and leading is None:
            context = packing.unpad(context)
        return self.output(context, asking), own

    def project_image_kv(self, normalised: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of images, with the affine part of the layer norm folded into the projection.

        `W (g * x + b) + c` is computed as `(W * g) x + (W b + c)`: the same function, but as a frozen tower's features
        then take no gradient, the backward pass needs no product for them. Of the folding it keeps the weights
        themselves and no copy of them. Adapters are folded in too, without their dropout.

        Args:
            normalised: `(M, P, Dv)`, tower features after the layer norm without scale and shift.
            scale: `(Dv,)`, weight of the layer norm.
            shift: `(Dv,)`, bias of the layer norm.

        Returns:
            Keys and values, each `(M, H, P, D/H)`.
        """
        parts = [(adapted_weight(linear), linear.bias) for linear in (self.attention.key, self.attention.value)]
        with torch.autocast(normalised.device.type, enabled=False):  # which would keep a rounded copy of each weight
            weight = torch.cat([part * scale for part, _ in parts])
            bias = torch.cat([F.linear(shift, part, own) for part, own in parts])
        folded = F.linear(normalised, weight, bias)
        key, value = folded.chunk(2, dim=-1)
        return self.split_heads(key), self.split_heads(value)

    def read_images(self, states: Tensor, image_kvs: list[tuple[Tensor, Tensor, int]]) -> Tensor:
        """Attention of queries to images.

        Args:
            states: `(R, Q, D)`; rows in the order of `image_kvs`, see `ImageKeyValues`.
            image_kvs: Groups of images: keys and values `(M, H, P, D/H)`, and the number of rows per image.

        Returns:
            New states `(R, Q, D)`.

        Rows that read the same image are laid side by side as more queries of one attention, so keys and values are
        never repeated.
        """
        query = self.split_heads(self.attention.query(states))
        contexts, start = [], 0
        for key, value, copies in image_kvs:
            images, length = key.shape[0], query.shape[2]
            rows = query[start : start + copies * images].unflatten(0, (copies, images))
            side_by_side = rows.permute(1, 2, 0, 3, 4).flatten(2, 3)
            context = self.attend(side_by_side, key, value).unflatten(2, (copies, length))
            contexts.append(context.permute(2, 0, 3, 1, 4).flatten(0, 1).flatten(2))
            start += copies * images
        if start != states.shape[0]:
            raise ValueError(f"the images serve {start} rows of queries, but there are {states.shape[0]}")
        return self.output(torch.cat(contexts) if len(contexts) > 1 else contexts[0], states)


def layer_image_kv(image_kvs: list[ImageKeyValues], layer: int) -> list[tuple[Tensor, Tensor, int]]:
    """Keys, values and copies of each group of images for cross-attention `layer`."""
    return [(kv.keys[layer], kv.values[layer], kv.copies) for kv in image_kvs]
