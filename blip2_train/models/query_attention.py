"""Attention maps of the queries: the weights of one cross-attention, recomputed beside the model's normal pass.

The normal pass (`Attention.read_images`) never holds these weights. Shape letters: B batch, Q queries, T text tokens,
L = Q + T, D hidden size, H heads, P patches with the tower's other tokens (class, registers), h and w rows and columns
of patches.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from blip2_train.models import masks
from blip2_train.models.blip2 import Blip2Model, at_least_float32
from blip2_train.models.qformer import QFormer
from blip2_train.types import ImageKeyValues


class CrossAttention(NamedTuple):
    """Input and weights of one cross-attention."""

    states: Tensor
    """`(B, Q, D)`: its input."""
    weights: Tensor
    """`(B, H, Q, P)`, at least float32; sums to 1 over P."""


def query_attention(
    model: Blip2Model,
    pixel_values: Tensor,
    *,
    layer: int = -1,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Attention weight of each query on each patch, mean over the heads.

    Args:
        model: Of any stage; set it to `eval()` first, or its dropout takes part.
        pixel_values: `(B, 3, H, W)`.
        layer: Number of the cross-attention among those there are (BLIP-2 has one in every second layer); -1 = last.
        input_ids: `(B, T)`, int64: what the Q-Former reads beside its queries, if anything: the text of a matching
            pair, or a question.
        attention_mask: `(B, T)`, bool, True = real token.

    Returns:
        `(B, Q, h, w)`, at least float32. What a query gives to the prefix tokens (class token, registers) is left out,
        so that the weights of a query sum to 1 only where the tower has none.

    Raises:
        IndexError: if there is no such cross-attention.
        ValueError: if text is given to a model whose Q-Former reads none.
    """
    queries = model.query_tokens.expand(len(pixel_values), -1, -1)
    embeddings, mask = queries, None
    if input_ids is not None and attention_mask is not None:
        if not hasattr(model, "embeddings"):
            raise ValueError("the Q-Former of this model reads no text; leave out input_ids and attention_mask")
        embeddings = torch.cat([queries, cast(Any, model).embeddings(input_ids)], dim=1)
        mask = masks.bidirectional(attention_mask, queries.shape[1])
    with torch.no_grad():
        image_kv = model.project_image(model.vision_model(pixel_values))
        attention = cross_attention(
            model.qformer, embeddings, image_kv, num_queries=queries.shape[1], mask=mask, layer=layer
        )
    patches = attention.weights.mean(dim=1)[:, :, model.vision_model.num_prefix_tokens :]
    return patches.unflatten(2, model.vision_model.grid_size)


def cross_attention(
    qformer: QFormer,
    embeddings: Tensor,
    image_kv: ImageKeyValues,
    *,
    num_queries: int,
    mask: Tensor | None = None,
    layer: int = -1,
) -> CrossAttention:
    """Run the Q-Former up to a cross-attention, and give its weights.

    Args:
        qformer: The Q-Former.
        embeddings: `(B, L, D)`: queries first, then text, as for `QFormer.forward`.
        image_kv: B images.
        num_queries: Q.
        mask: Of the self-attention, as for `QFormer.forward`.
        layer: Number among the cross-attentions; -1 = last.

    Raises:
        IndexError: if there is no such cross-attention.
    """
    count = len(image_kv.keys)
    if not -count <= layer < count:
        raise IndexError(f"there is no cross-attention {layer}; the Q-Former has {count}: 0 … {count - 1}")
    target, reading = layer % count, 0
    states = qformer.dropout(qformer.layernorm(embeddings))
    for block in qformer.layers:
        if block.crossattention is None:
            states, _ = block(states, num_queries, mask, None, None)
            continue
        if reading == target:
            states, _ = block.attention.self_attention(states, mask)
            queries = states[:, :num_queries]
            query = block.crossattention.split_heads(block.crossattention.attention.query(queries))
            query, key = at_least_float32(query), at_least_float32(image_kv.keys[reading])
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            return CrossAttention(queries, scores.softmax(dim=-1))
        states, _ = block(states, num_queries, mask, [(image_kv.keys[reading], image_kv.values[reading], 1)], None)
        reading += 1
    raise AssertionError("`image_kv` has keys for more cross-attentions than the Q-Former has")
