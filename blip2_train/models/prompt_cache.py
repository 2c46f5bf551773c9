"""What a language model has read of prompts, kept as keys and values that any number of texts go on from.

transformers' `generate` copies a prompt for each beam before it reads it. Here a prompt is read once, padded on the
right, where no real token attends to the padding and no row of a mask is empty; then its keys and values are moved so
that the padding stands in front, and repeated.

Beside public interfaces this file uses what transformers does not promise: the name of the argument that takes a
cache; `keys` and `values` of `Cache.layers`, which are replaced and never changed in place; `is_updated` of a cache for
encoder and decoder; the attributes `_reorder_cache`, `_is_stateful` and `_is_fsdp_managed_module` of models; and its
general `prepare_inputs_for_generation`: a model with another one is read in a way of its own, and not here.
Tried with transformers 5.17.0, 5.24.0 and 5.25.0.

Shape letters: B prompts, L tokens of the longest, R rows that go on from them, t tokens, H heads, D hidden size, V
vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutput

_GENERAL = GenerationMixin.prepare_inputs_for_generation
_CACHE = "cache" if "cache" in inspect.signature(_GENERAL).parameters else "past_key_values"
"""Name of the argument: `past_key_values` until transformers 5.23 or so."""


class ReadPrompts(ABC):
    """B prompts that were read once, and how far texts behind them have been read.

    Attributes:
        first: `(B, V)`, float32: logits of what follows the prompts.
    """

    first: Tensor

    @abstractmethod
    def read(self, ids: Tensor, origin: Tensor | None = None) -> Tensor:
        """Read on; the object stands behind `ids` afterwards.

        Args:
            ids: `(R, t)`, int64, t >= 1.
            origin: `(R,)`, int64: the row that each goes on from, among those read last (the prompts, at first). All
                later rows of a prompt must go on from rows of the same prompt. None = from the row of the same index.

        Returns:
            Logits `(R, t, V)`, float32, of what follows each of them.
        """

    @abstractmethod
    def fork(self) -> Self:
        """The same state, apart from which this one stays as it is; no number is copied."""

    def step(self, tokens: Tensor, origin: Tensor | None) -> Tensor:
        """Read the last of `tokens` `(R, t)`: the step of `generate_tokens`."""
        return self.read(tokens[:, -1:], origin)[:, -1]


class DecoderOnlyPrompts(ReadPrompts):
    """Prompts of a language model without an encoder."""

    def __init__(self, model: PreTrainedModel, cache: Any, states: Tensor, lengths: Tensor) -> None:
        self._model, self._cache, self._lengths = cast(Any, model), cache, lengths
        rows, longest = torch.arange(len(lengths), device=lengths.device), states.shape[1]
        self.first = self._last_logits(states[rows, lengths - 1])
        self._mask: Tensor | None = None
        if bool((lengths != longest).any()):
            padding = longest - lengths[:, None]
            columns = torch.arange(longest, device=lengths.device)[None]
            _take_columns(cache, (columns - padding) % longest)
            self._mask = (columns >= padding).long()

    def read(self, ids: Tensor, origin: Tensor | None = None) -> Tensor:
        """Read on."""
        if origin is not None:
            self._cache.reorder_cache(origin)
            self._lengths = self._lengths[origin]
            self._mask = None if self._mask is None else self._mask[origin]
        logits: Tensor = self._model(input_ids=ids, **self._behind(ids)).logits
        return logits.float()

    def fork(self) -> Self:
        """The same state."""
        twin = copy.copy(self)
        twin._cache = _forked(self._cache)
        return twin

    def extended(self, kept: int, ids: Tensor) -> Self | None:
        """One prompt that begins as this one, of which B is 1 and nothing else was read, and goes on otherwise.

        Args:
            kept: Tokens of this one, with the queries, that it begins with.
            ids: `(1, t)`, int64, t >= 1: what follows them there.

        Returns:
            None if the cache cannot be cut.
        """
        twin = self.fork()
        if kept < int(self._lengths):
            if any(type(layer) is not DynamicLayer for layer in twin._cache.layers):
                return None
            _take_columns(twin._cache, torch.arange(kept, device=ids.device)[None])
            twin._lengths = torch.full_like(self._lengths, kept)
        states = twin._model.base_model(input_ids=ids, **twin._behind(ids)).last_hidden_state
        twin.first = twin._last_logits(states[:, -1])
        return twin

    def _last_logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self._model.get_output_embeddings()(states[:, None])[:, 0]
        return logits.float()

    def _behind(self, ids: Tensor) -> dict[str, Any]:
        """Arguments to read `ids` with, behind what is in the cache; counts them as read."""
        given: dict[str, Any] = {_CACHE: self._cache, "use_cache": True}
        if self._mask is not None:
            given["attention_mask"] = self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        if takes_positions(self._model):
            given["position_ids"] = self._lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        self._lengths = self._lengths + ids.shape[1]
        return given


class EncoderDecoderPrompts(ReadPrompts):
    """Prompts in the encoder of a language model, whose decoder has read what its texts start with."""

    def __init__(self, model: PreTrainedModel, cache: EncoderDecoderCache, encoded: Tensor, mask: Tensor) -> None:
        self._model, self._cache = cast(Any, model), cast(Any, cache)
        self._encoded, self._mask = encoded, mask
        self._repeated = False

    def read(self, ids: Tensor, origin: Tensor | None = None) -> Tensor:
        """Read on."""
        if origin is not None:
            self._cache.self_attention_cache.reorder_cache(origin)
            if not self._repeated:  # later, all rows of a prompt have the same
                self._cache.cross_attention_cache.reorder_cache(origin)
                self._encoded, self._mask = self._encoded[origin], self._mask[origin]
                self._repeated = True
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
            attention_mask=self._mask,
            decoder_input_ids=ids,
            use_cache=True,
            **{_CACHE: self._cache},
        )
        logits: Tensor = output.logits.float()
        return logits

    def fork(self) -> Self:
        """The same state."""
        twin = copy.copy(self)
        twin._cache = copy.copy(self._cache)
        twin._cache.is_updated = dict(self._cache.is_updated)
        twin._cache.self_attention_cache = _forked(self._cache.self_attention_cache)
        twin._cache.cross_attention_cache = _forked(self._cache.cross_attention_cache)
        return twin


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether a language model can be given the positions of its tokens."""
    return "position_ids" in inspect.signature(model.forward).parameters


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether a language model's weights are sharded over the processes (FSDP)."""
    return bool(getattr(model, "_is_fsdp_managed_module", False))


def reads_once(model: PreTrainedModel) -> bool:
    """Whether a language model is of those whose caches are known to be repeatable, as far as its class tells."""
    return (
        getattr(type(model), "prepare_inputs_for_generation", None) is _GENERAL
        and _CACHE in inspect.signature(model.forward).parameters
        and not hasattr(model, "_reorder_cache")
        and not getattr(model, "_is_stateful", False)
    )


def read_prompts(
    model: PreTrainedModel, embeddings: Tensor, mask: Tensor, start: Sequence[int] = ()
) -> ReadPrompts | None:
    """Read prompts once.

    Args:
        model: The language model.
        embeddings: `(B, L, D)`, padded on the right.
        mask: `(B, L)`, int64, 1 = real token; at least one in each row.
        start: Ids that the decoder's texts start with; none without an encoder.

    Returns:
        None if the model cannot be read in this way: one with recurrent states, a sliding window shorter than the
        prompts, keys shared among layers, or prompts of unequal length whose positions it cannot be told.
    """
    lengths = mask.sum(dim=1)
    if not reads_once(model):
        return None
    language_model: Any = model
    if not start:
        if not takes_positions(model) and bool((lengths != mask.shape[1]).any()):
            return None
        cache = _empty_cache(model)
        states = language_model.base_model(
            inputs_embeds=embeddings, use_cache=True, **{_CACHE: cache}
        ).last_hidden_state
        return DecoderOnlyPrompts(model, cache, states, lengths) if _is_plain(cache, mask.shape[1]) else None
    encoded = language_model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    both = EncoderDecoderCache(_empty_cache(model), _empty_cache(model))
    read = EncoderDecoderPrompts(model, both, encoded, mask)
    ids = torch.tensor([list(start)], device=mask.device).expand(len(mask), -1)
    read.first = read.read(ids)[:, -1]
    plain = _is_plain(both.self_attention_cache, len(start)) and _is_plain(both.cross_attention_cache, mask.shape[1])
    return read if plain else None


def _empty_cache(model: PreTrainedModel) -> DynamicCache:
    if model.config.is_encoder_decoder:  # T5's configuration counts the encoder's layers
        return DynamicCache()
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _is_plain(cache: Any, length: int) -> bool:
    """Whether each layer holds keys and values of all tokens so far, and nothing else."""
    layers = cache.layers
    return bool(layers) and all(
        (type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and length < layer.sliding_window))
        and all(part is not None and part.ndim == 4 and part.shape[2] == length for part in (layer.keys, layer.values))
        for layer in layers
    )


def _take_columns(cache: Any, columns: Tensor) -> None:
    """Keep, of each row, the tokens at `columns` `(B, L)`, in this order."""
    for layer in cache.layers:
        for name in ("keys", "values"):
            part = getattr(layer, name)  # (B, H, L, D)
            selected = columns[:, None, :, None].expand(-1, part.shape[1], -1, part.shape[3])
            setattr(layer, name, part.gather(2, selected))


def _forked(cache: Any) -> Any:
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin
