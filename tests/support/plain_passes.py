"""The Q-Former's passes written a second time, without anything folded, shared or fused.

Shape letters: R rows, Q queries, T text tokens, L = Q + T, P patches, D hidden size, H heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_train.models.attention import Attention, ResidualOutput
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.qformer import Intermediate

HIDDEN = -10000.0
"""Added to the score of whatever a position may not look at."""
KeyValue = tuple[Tensor, Tensor]


def linear(part: nn.Linear, values: Tensor) -> Tensor:
    """`(…, in)` to `(…, out)` with the weights of `part`."""
    return F.linear(values, part.weight, part.bias)


def layer_norm(part: nn.LayerNorm, values: Tensor) -> Tensor:
    """Layer norm over the last dimension with the weights of `part`."""
    return F.layer_norm(values, values.shape[-1:], part.weight, part.bias, part.eps)


class PlainPasses:
    """Passes over the weights of a model.

    Args:
        model: Whose weights are read; dropout is that of its configuration, on while `model.training`.
        fused: Use `scaled_dot_product_attention` instead of explicit softmax attention.
    """

    def __init__(self, model: ImageTextModel, fused: bool) -> None:
        self.model, self.fused = model, fused
        self.settings = model.qformer_config

    def run(
        self,
        embeddings: Tensor,
        num_queries: int,
        visible: Tensor,
        images: Tensor | None,
        past: list[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """One pass through all layers.

        Args:
            embeddings: `(R, L, D)`, queries first.
            num_queries: Q, 0 for text alone.
            visible: `(R, L, columns)`, bool, True = the position may look at the column.
            images: `(R, P, Dv)`, images after `ln_vision`; None if there are no queries.
            past: Keys and values per layer of columns in front, each `(R, H, columns - L, D/H)`.

        Returns:
            States `(R, L, D)`, and each layer's own keys and values.
        """
        mask = ((~visible).to(embeddings.dtype) * HIDDEN)[:, None]
        states = self._dropout(layer_norm(self.model.qformer.layernorm, embeddings), self.settings.dropout)
        kept = []
        for index in range(self.settings.num_layers):
            layer: Any = self.model.qformer.encoder.layer[index]
            before = None if past is None else past[index]
            states, key_value = self._attention(layer.attention, states, states, mask, before)
            kept.append(key_value)
            queries, text = states[:, :num_queries], states[:, num_queries:]
            outputs = []
            if num_queries > 0:
                if index % self.settings.cross_attention_every == 0:
                    assert images is not None
                    queries, _ = self._attention(layer.crossattention, queries, images, None)
                outputs.append(self._feed_forward(layer.intermediate_query, layer.output_query, queries))
            if text.shape[1] > 0:
                outputs.append(self._feed_forward(layer.intermediate, layer.output, text))
            states = torch.cat(outputs, dim=1)
        return states, kept

    def embed(self, ids: Tensor) -> Tensor:
        """`(R, T)` ids to `(R, T, D)`, positions from 0."""
        table = self.model.embeddings
        words = F.embedding(ids, table.word_embeddings.weight, padding_idx=table.word_embeddings.padding_idx)
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        return words + F.embedding(positions, table.position_embeddings.weight)

    def queries(self, rows: int) -> Tensor:
        """`(R, Q, D)`: the learned queries, once per row."""
        return self.model.query_tokens.repeat(rows, 1, 1)

    def queries_and(self, ids: Tensor) -> Tensor:
        """`(R, Q + T, D)`: queries in front of texts `(R, T)`."""
        return torch.cat([self.queries(len(ids)), self.embed(ids)], dim=1)

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """`(…, D)` to `(…, V)`, by BERT's head with the word embeddings as output matrix."""
        head = self.model.lm_head
        changed = layer_norm(head.LayerNorm, head.activation(linear(head.dense, states)))
        return F.linear(changed, self.model.embeddings.word_embeddings.weight, head.bias)

    def _attention(
        self, part: Attention, states: Tensor, source: Tensor, mask: Tensor | None, past: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        def heads(projected: Tensor) -> Tensor:
            rows, length, size = projected.shape
            return projected.view(rows, length, part.num_heads, size // part.num_heads).permute(0, 2, 1, 3)

        query = heads(linear(part.attention.query, states))
        key, value = heads(linear(part.attention.key, source)), heads(linear(part.attention.value, source))
        own = (key, value)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        dropped = self.settings.attention_dropout
        if self.fused:
            bias = None if mask is None else mask.to(query.dtype)
            chance = dropped if self.model.training else 0.0
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=chance)
        else:
            scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
            if mask is not None:
                scores = scores + mask
            context = self._dropout(scores.softmax(dim=3), dropped).to(value.dtype) @ value
        joined = context.permute(0, 2, 1, 3).flatten(2)
        return self._residual(part.output, joined, states), own

    def _feed_forward(self, first: Intermediate, second: ResidualOutput, states: Tensor) -> Tensor:
        return self._residual(second, first.activation(linear(first.dense, states)), states)

    def _residual(self, part: ResidualOutput, values: Tensor, residual: Tensor) -> Tensor:
        return layer_norm(part.LayerNorm, self._dropout(linear(part.dense, values), self.settings.dropout) + residual)

    def _dropout(self, values: Tensor, probability: float) -> Tensor:
        return F.dropout(values, probability, training=self.model.training)
