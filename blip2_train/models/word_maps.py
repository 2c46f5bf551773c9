"""Maps of the words of a matching pair: which part of an image a word leads the queries to, for the sake of a match.

In BLIP-2 no word attends to the image. Queries read the words by self-attention, and look at the image by the
cross-attention that follows in the same layer; a map joins the two. Shape letters: M pairs, Q queries, T text tokens,
L = Q + T, H heads, P patches with the tower's other tokens, h and w rows and columns of patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_train.models import masks
from blip2_train.models.attention import Attention
from blip2_train.models.blip2 import at_least_float32
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.qformer import QFormerLayer


def word_maps(model: ImageTextModel, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Gradient-weighted map of each token of a text over its image.

    The weights of every self-attention from queries to tokens, and of the cross-attention behind it, are multiplied by
    the gradient of the match's log-odds, negative products are dropped, and the mean over the heads is taken; the map
    of a token is the sum over layers and queries of the product of both. A large value: for the match it counts that a
    query reads this token, and looks there.

    Args:
        model: In eval mode.
        pixel_values: `(M, 3, H, W)`.
        input_ids: `(M, T)`, int64, starting with `[CLS]`.
        attention_mask: `(M, T)`, bool, True = real token.

    Returns:
        `(M, T, h, w)`, float32, 0 or more, in no unit; 0 for padding. What falls on the prefix tokens of the tower is
        left out.

    Source: the weighting is that of Chefer et al., 2021 (arXiv:2103.15679), equation 5; there relevance goes through
        all layers, here from token to query to patch within a layer, as nothing else in a Q-Former leads to a patch.
    """
    with torch.inference_mode(False), torch.enable_grad():
        logits, read, looked = explicit_match(model, pixel_values.clone(), input_ids.clone(), attention_mask.clone())
        log_odds = logits[:, 1] - logits[:, 0]
        gradients = torch.autograd.grad(log_odds.sum(), [*read, *looked])
    count, tokens = len(read), input_ids.shape[1]
    maps = torch.zeros(1)
    for weights, gradient, seen, slope in zip(read, gradients[:count], looked, gradients[count:], strict=True):
        queries = seen.shape[2]
        from_tokens = (weights * gradient).clamp(min=0).mean(dim=1)[:, :queries, queries : queries + tokens]
        to_patches = (seen * slope).clamp(min=0).mean(dim=1)
        maps = maps.to(seen.device) + from_tokens.transpose(1, 2) @ to_patches
    patches = maps.detach()[:, :, model.vision_model.num_prefix_tokens :]
    return patches.unflatten(2, model.vision_model.grid_size)


def explicit_match(
    model: ImageTextModel, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The matching pass with attention weights that can be differentiated by.

    Returns:
        Logits `(M, 2)` as `ImageTextModel.match` gives them, and for every layer with cross-attention the weights of
        its self-attention `(M, H, L, L)` and of its cross-attention `(M, H, Q, P)`.
    """
    with torch.no_grad():
        image_kv = model.project_image(model.vision_model(pixel_values))
        queries = model.query_tokens.expand(len(pixel_values), -1, -1)
        embeddings = torch.cat([queries, model.embeddings(input_ids)], dim=1)
    count = queries.shape[1]
    mask = masks.bidirectional(attention_mask, count)
    states = model.qformer.layernorm(embeddings.requires_grad_())
    read: list[Tensor] = []
    looked: list[Tensor] = []
    for layer in model.qformer.layers:
        if layer.crossattention is None:
            states, _ = layer(states, count, mask, None, None)
            continue
        key, value = image_kv.keys[len(looked)], image_kv.values[len(looked)]
        states, of_tokens, of_patches = _explicit_layer(layer, layer.crossattention, states, count, mask, key, value)
        read.append(of_tokens)
        looked.append(of_patches)
    return at_least_float32(model.itm_head(states[:, :count])).mean(dim=1), read, looked


def _explicit_layer(
    layer: QFormerLayer, cross: Attention, states: Tensor, count: int, mask: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer with cross-attention: new states, and the weights of both attentions."""
    own = layer.attention.attention
    heads = layer.attention.split_heads
    states, read = _attend(layer.attention, states, heads(own.key(states)), heads(own.value(states)), mask)
    queries, text = states[:, :count], states[:, count:]
    queries, looked = _attend(cross, queries, key, value, None)
    queries = layer.output_query(layer.intermediate_query(queries), queries)
    return torch.cat([queries, layer.output(layer.intermediate(text), text)], dim=1), read, looked


def _attend(
    attention: Attention, states: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """New states `(M, L, D)`, and the weights that made them."""
    query = attention.split_heads(attention.attention.query(states))
    scores = at_least_float32(query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    context = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
    return attention.output(context, states), weights
