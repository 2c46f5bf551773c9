"""The Querying Transformer: BERT layers in which learned queries read an image (Li et al., 2023, section 3.1).

Parameter names follow transformers' `Blip2QFormerModel`. Shape letters: R rows, Q queries, T text tokens, L = Q + T,
W positions returned, D hidden size, H heads, V vocabulary; N real tokens and S = R * Q + N positions of a row without
padding (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from blip2_train.models.attention import Attention, ResidualOutput, layer_image_kv
from blip2_train.models.configs import QFormerConfig
from blip2_train.models.packing import Packing
from blip2_train.types import ImageKeyValues

KeyValue = tuple[Tensor, Tensor]


class QFormerOutput(NamedTuple):
    """Output of a pass through the Q-Former."""

    states: Tensor
    """`(R, W, D)`: those of the positions returned; `(S, D)` if they are all of a row without padding."""
    cache: tuple[KeyValue, ...]
    """Self-attention keys and values of each layer, each `(R, H, L, D/H)`; empty unless they were asked for."""


def _activation(name: str) -> nn.Module:
    """The function of transformers by that name."""
    if name == "gelu":
        return nn.GELU()  # the same; transformers takes half as long to import as torch
    from transformers.activations import ACT2FN

    function: nn.Module = ACT2FN[name]
    return function


class Intermediate(nn.Module):
    """First half of a feed-forward block."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str = "gelu") -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, intermediate_size)
        self.activation = _activation(hidden_act)

    def forward(self, states: Tensor) -> Tensor:
        """`(…, D)` to `(…, F)`."""
        activated: Tensor = self.activation(self.dense(states))
        return activated


class QFormerLayer(nn.Module):
    """Shared self-attention, cross-attention of the queries in some layers, feed-forwards for queries and for text."""

    def __init__(self, config: QFormerConfig, image_width: int, reads_images: bool, text_branch: bool) -> None:
        super().__init__()
        size, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps

        def attention(source_size: int) -> Attention:
            return Attention(
                size,
                config.num_heads,
                source_size=source_size,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                eps=eps,
            )

        self.attention = attention(size)
        self.crossattention = attention(image_width) if reads_images else None
        if text_branch:
            self.intermediate = Intermediate(size, inner, config.hidden_act)
            self.output = ResidualOutput(inner, size, config.dropout, eps)
        self.intermediate_query = Intermediate(size, inner, config.hidden_act)
        self.output_query = ResidualOutput(inner, size, config.dropout, eps)

    def forward(
        self,
        states: Tensor,
        num_queries: int,
        mask: Tensor | None,
        image_kvs: list[tuple[Tensor, Tensor, int]] | None,
        cache: KeyValue | None,
        leading: int | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """`(R, L, D)` to `(R, W, D)` and own keys and values; the first `num_queries` positions are queries.

        W = `leading`, or L if it is None. A layer without feed-forward for text can give the queries alone. With
        `packing` the states are a row `(S, D)`, and stay one if W = L.
        """
        states, own = self.attention.self_attention(states, mask, cache, leading, packing)
        if num_queries == 0:
            return self.output(self.intermediate(states), states), own
        if packing is None or leading is not None:
            queries, text = states.split([num_queries, states.shape[1] - num_queries], dim=1)
        else:
            queries, text = packing.split(states)
        if self.crossattention is not None and image_kvs is not None:
            queries = self.crossattention.read_images(queries, image_kvs)
        queries = self.output_query(self.intermediate_query(queries), queries)
        if text.numel() == 0:
            return queries, own
        text = self.output(self.intermediate(text), text)
        return torch.cat([queries, text], dim=1) if packing is None else packing.join(queries, text), own


class QFormerEncoder(nn.Module):
    """The stack of layers; it exists to give the parameters their names."""

    def __init__(self, config: QFormerConfig, image_width: int, text_layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            QFormerLayer(config, image_width, index % config.cross_attention_every == 0, index < text_layers)
            for index in range(config.num_layers)
        )


class QFormer(nn.Module):
    """Embedding layer norm and the stack of layers; queries, text, or both go in as embeddings.

    Args:
        config: Sizes.
        image_width: Width Dv of the images' features.
        text_layers: How many layers, from the first, have feed-forward blocks for text: all to use the text's outputs,
            one less if only the queries' are used (`leading` in every pass), 0 if no text goes in.
    """

    def __init__(self, config: QFormerConfig, image_width: int, text_layers: int) -> None:
        super().__init__()
        self.gradient_checkpointing = config.gradient_checkpointing
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = QFormerEncoder(config, image_width, text_layers)

    @property
    def layers(self) -> list[QFormerLayer]:
        """The layers, first to last."""
        return cast(list[QFormerLayer], list(self.encoder.layer))

    def forward(
        self,
        embeddings: Tensor,
        *,
        num_queries: int,
        mask: Tensor | None = None,
        image_kvs: Sequence[ImageKeyValues] | None = None,
        cache: Sequence[KeyValue] | None = None,
        leading: int | None = None,
        packing: Packing | None = None,
        keep_cache: bool = False,
    ) -> QFormerOutput:
        """Run all layers.

        Args:
            embeddings: `(R, L, D)`: queries first, then text, before the layer norm (queries pass through it too); with
                `packing` `(S, D)`.
            num_queries: Number Q of queries at the front; 0 for a pass of text alone.
            mask: Broadcastable to `(R, H, L, C + L)`, bool, True = may attend; None = everything may.
            image_kvs: The images the queries read; their rows add up to R.
            cache: Keys and values of C tokens in front, per layer, each `(R, H, C, D/H)`.
            leading: Number W of positions, from the first, whose states are returned; the last layer then computes no
                others. None = all L.
            packing: Where the positions of a row stand in the sequences, see `Attention.self_attention`.
            keep_cache: Return each layer's keys and values, too.
        """
        states = self.dropout(self.layernorm(embeddings))
        run = _run_again_in_backward if self.gradient_checkpointing and self.training else _run
        kept: list[KeyValue] = []
        reading = 0
        for index, layer in enumerate(self.layers):
            layer_kv = None
            if image_kvs is not None and layer.crossattention is not None:
                layer_kv = layer_image_kv(list(image_kvs), reading)
                reading += 1
            num_outputs = leading if index == len(self.layers) - 1 else None
            layer_cache = None if cache is None else cache[index]
            states, own = run(layer, states, num_queries, mask, layer_kv, layer_cache, num_outputs, packing)
            if keep_cache:
                kept.append(own)
        return QFormerOutput(states, tuple(kept))

    def project_image_kv(self, normalised: Tensor, scale: Tensor, shift: Tensor) -> ImageKeyValues:
        """Cross-attention keys and values of images; see `Attention.project_image_kv`."""
        pairs = [
            layer.crossattention.project_image_kv(normalised, scale, shift)
            for layer in self.layers
            if layer.crossattention is not None
        ]
        return ImageKeyValues(keys=tuple(k for k, _ in pairs), values=tuple(v for _, v in pairs))


def _run(layer: QFormerLayer, *arguments: Any) -> tuple[Tensor, KeyValue]:
    states, own = layer(*arguments)
    return states, own


def _run_again_in_backward(
    layer: QFormerLayer,
    states: Tensor,
    num_queries: int,
    mask: Tensor | None,
    image_kvs: list[tuple[Tensor, Tensor, int]] | None,
    cache: KeyValue | None,
    *others: Any,
) -> tuple[Tensor, KeyValue]:
    """As `_run`, but only what the layer reads is kept for the backward pass, which computes the rest again.

    Every tensor with a gradient is an argument of its own, as `saved_tensors_hooks` see no others.
    """
    copies = None if image_kvs is None else [count for _, _, count in image_kvs]

    def again(states: Tensor, *tensors: Tensor) -> tuple[Tensor, KeyValue]:
        own_cache = None if cache is None else (tensors[-2], tensors[-1])
        kvs = None if copies is None else list(zip(tensors[0::2], tensors[1::2], copies, strict=False))
        return _run(layer, states, num_queries, mask, kvs, own_cache, *others)

    flat = [tensor for key, value, _ in image_kvs or [] for tensor in (key, value)]
    result: tuple[Tensor, KeyValue] = checkpoint(again, states, *flat, *(cache or ()), use_reentrant=False)
    return result


class TextEmbeddings(nn.Module):
    """Word and learned position embeddings (BERT's without segments)."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_positions, config.hidden_size)

    def forward(self, input_ids: Tensor, packing: Packing | None = None) -> Tensor:
        """`(B, T)` ids to `(B, T, D)`, or to their real tokens `(N, D)`.

        Positions count from 0 also when queries stand in front.
        """
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        if packing is not None:
            positions = positions.index_select(0, packing.tokens % packing.text_length)
            input_ids = packing.select(input_ids)
        embedded: Tensor = self.word_embeddings(input_ids) + positions
        return embedded


class LanguageModellingHead(nn.Module):
    """BERT's prediction head; the output matrix is the word embedding."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = _activation(config.hidden_act)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, states: Tensor, word_embeddings: Tensor) -> Tensor:
        """`(…, D)` states and `(V, D)` embeddings to `(…, V)` logits."""
        return F.linear(self.LayerNorm(self.activation(self.dense(states))), word_embeddings, self.bias)


def initialise_like_bert(module: nn.Module, std: float = 0.02) -> None:
    """Sample linear and embedding weights from N(0, std²), biases 0, layer norms 1 and 0 (BERT's initialisation)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


def copy_text_to_query_feed_forward(qformer: QFormer) -> None:
    """Start the queries' feed-forward blocks from the text's (Li et al., 2023, as in the released stage 1)."""
    for layer in qformer.layers:
        layer.intermediate_query.load_state_dict(layer.intermediate.state_dict())
        layer.output_query.load_state_dict(layer.output.state_dict())
