"""A second, plain implementation of a stage-1 step, organised as the released code is.

It reads the weights of an `ImageTextModel` and none of its passes; tests and the benchmark compare the real step with
it. Shape letters: N samples, R rows of pairs, Q queries, T text tokens, P patches, Dv tower width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from plain_passes import KeyValue, PlainPasses, layer_norm, linear
from torch import Tensor
from torch.nn import functional as F

from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch

Mark = Callable[[str], None]
"""Called with the name of each part of a step when it ends."""


def no_mark(part: str) -> None:
    """Let the end of a part pass."""


@dataclass(frozen=True, kw_only=True)
class PlainLogits:
    """Everything the three losses of one global batch are made of."""

    image_to_text: Tensor
    """`(N, N)`, similarity / temperature of every image (row) to every text."""
    text_to_image: Tensor
    """`(N, N)`, of every text (row) to every image."""
    itc_targets: Tensor
    """`(N, N)`, rows sum to 1."""
    itm: Tensor
    """`(R, 2)` of the pairs in use: own pairs, own text with negative image, negative text with own image."""
    itm_labels: Tensor
    """`(R,)`, 1 = match."""
    itg: Tensor
    """`(N, T - 1, V)`."""
    itg_labels: Tensor
    """`(N, T - 1)`, -100 where there is nothing to predict."""


class PlainReference:
    """The step by separate passes over the fixed text length, keys and values of images projected anew in each.

    Args:
        model: Whose weights are used.
        objective: Whose settings are used (gather rule, negatives, smoothing, weights).
        reuse_queries: ITG reads the keys and values that the queries had in the image pass, as in the released code;
            otherwise it runs queries and text together under the multimodal causal mask, as in the paper's figure 2.
        fused: Use `scaled_dot_product_attention` instead of explicit softmax attention.

    Source: BLIP-2 (Li et al., 2023, arXiv:2301.12597), sections 3.1 and 3.2, and the order of computation of its
    released code. Unlike there, the batch is that of all processes together, so nothing is gathered; a row without
    any valid negative is left out of ITM; similarities are never in 16 bits.
    """

    def __init__(
        self,
        model: ImageTextModel,
        objective: RepresentationObjective,
        *,
        reuse_queries: bool = False,
        fused: bool = False,
    ) -> None:
        self.model, self.objective, self.reuse_queries = model, objective, reuse_queries
        self.passes = PlainPasses(model, fused)

    def __call__(self, batch: ImageTextBatch, uniforms: Tensor | None, mark: Mark = no_mark) -> Tensor:
        """The summed loss of the samples of all processes; arguments as for `logits`."""
        actual, settings = self.logits(batch, uniforms, mark), self.objective
        itc = F.cross_entropy(actual.image_to_text, actual.itc_targets) / 2
        itc = itc + F.cross_entropy(actual.text_to_image, actual.itc_targets) / 2
        itm = F.cross_entropy(actual.itm, actual.itm_labels)
        predictions, labels = actual.itg.flatten(0, 1), actual.itg_labels.flatten()
        itg = F.cross_entropy(predictions, labels, label_smoothing=settings.label_smoothing)
        mark("itg")
        return settings.itc_weight * itc + settings.itm_weight * itm + settings.itg_weight * itg

    def logits(self, batch: ImageTextBatch, uniforms: Tensor | None, mark: Mark = no_mark) -> PlainLogits:
        """Everything up to the losses.

        Args:
            batch: The samples of all processes.
            uniforms: `(2, N)`, one number in [0, 1) per negative text and per negative image; None = the next sample is
                every sample's negative.
            mark: Told the end of `vision`, `itc` and `itm`.
        """
        images = self.images(batch.pixel_values)
        mark("vision")
        to_texts, to_images, query_cache = self._contrast(images, batch)
        same = torch.eye(len(batch), dtype=torch.bool, device=images.device)
        if self.objective.mask_same_image:
            same = batch.image_ids[:, None] == batch.image_ids[None, :]
        smoothing = self.objective.label_smoothing
        targets = (1 - smoothing) * same.double() / same.sum(dim=1, keepdim=True) + smoothing / len(batch)
        mark("itc")
        negative_texts = self._negatives(to_texts, same, None if uniforms is None else uniforms[0])
        negative_images = self._negatives(to_images, same, None if uniforms is None else uniforms[1])
        itm, itm_labels = self._match(images, batch, negative_texts, negative_images)
        mark("itm")
        itg, itg_labels = self._generate(images, batch, query_cache)
        return PlainLogits(
            image_to_text=to_texts,
            text_to_image=to_images,
            itc_targets=targets.to(to_texts.dtype),
            itm=itm,
            itm_labels=itm_labels,
            itg=_not_16_bits(itg[:, :-1]),
            itg_labels=itg_labels[:, 1:],
        )

    def images(self, pixel_values: Tensor) -> Tensor:
        """`(N, 3, H, W)` images to `(N, P, Dv)` features after `ln_vision`."""
        features = self.model.vision_model(pixel_values)
        return layer_norm(self.model.ln_vision, features.to(self.model.ln_vision.weight.dtype))

    def _contrast(self, images: Tensor, batch: ImageTextBatch) -> tuple[Tensor, Tensor, list[KeyValue]]:
        model, real, num_queries = self.model, batch.attention_mask, self.model.query_tokens.shape[1]
        count, length = real.shape
        everything = real.new_ones(count, num_queries, num_queries)
        query_states, cache = self.passes.run(self.passes.queries(count), num_queries, everything, images)
        text_sees = real[:, None, :].expand(-1, length, -1)
        text_states, _ = self.passes.run(self.passes.embed(batch.input_ids), 0, text_sees, None)
        image_features = _unit(_not_16_bits(linear(model.vision_projection, query_states)))
        text_features = _unit(_not_16_bits(linear(model.text_projection, text_states[:, 0])))
        image_keys, text_keys = image_features, text_features
        if self.objective.gather == "detached":
            image_keys, text_keys = image_features.detach(), text_features.detach()
        with torch.autocast(real.device.type, enabled=False):
            per_query = (image_features[:, None] @ text_keys[None, :, :, None])[..., 0]
            to_texts = per_query.amax(dim=2) / model.temperature
            per_query = (image_keys[None] @ text_features[:, None, :, None])[..., 0]
            to_images = per_query.amax(dim=2) / model.temperature
        return to_texts, to_images, cache

    def _negatives(self, logits: Tensor, forbidden: Tensor, uniforms: Tensor | None) -> list[int | None]:
        """One column per row, drawn row by row; None where every column is forbidden."""
        count = len(logits)
        if uniforms is None:
            return [(row + 1) % count for row in range(count)]
        drawn: list[int | None] = []
        for row in range(count):
            scores = logits[row].detach().double()
            if self.objective.negatives == "floor":
                weights = (scores.softmax(dim=0) + 1e-4) * ~forbidden[row]
            else:
                weights = scores.masked_fill(forbidden[row], -torch.inf).softmax(dim=0).nan_to_num(0.0)
            drawn.append(_draw(weights.tolist(), float(uniforms[row])))
        return drawn

    def _match(
        self,
        images: Tensor,
        batch: ImageTextBatch,
        negative_texts: list[int | None],
        negative_images: list[int | None],
    ) -> tuple[Tensor, Tensor]:
        count, num_queries = len(batch), self.model.query_tokens.shape[1]
        used = [row for row in range(count) if negative_texts[row] is not None]
        texts = [*range(count), *used, *(column for column in negative_texts if column is not None)]
        chosen = [*range(count), *(column for column in negative_images if column is not None), *used]
        ids = torch.stack([batch.input_ids[row] for row in texts])
        real = torch.stack([batch.attention_mask[row] for row in texts])
        columns = torch.cat([real.new_ones(len(texts), num_queries), real], dim=1)
        visible = columns[:, None, :].expand(-1, columns.shape[1], -1)
        pair_images = torch.stack([images[row] for row in chosen])
        states, _ = self.passes.run(self.passes.queries_and(ids), num_queries, visible, pair_images)
        labels = torch.tensor([1] * count + [0] * (2 * len(used)), device=ids.device)
        return _not_16_bits(linear(self.model.itm_head, states[:, :num_queries])).mean(dim=1), labels

    def _generate(self, images: Tensor, batch: ImageTextBatch, cache: list[KeyValue]) -> tuple[Tensor, Tensor]:
        real, num_queries = batch.attention_mask, self.model.query_tokens.shape[1]
        count, length = real.shape
        ids = batch.input_ids.clone()
        ids[:, 0] = self.model.qformer_config.vocab_size - 1
        positions = torch.arange(num_queries + length, device=ids.device)
        row, column = positions[:, None], positions[None, :]
        allowed = (column < num_queries) | ((row >= num_queries) & (column <= row))
        visible = allowed & torch.cat([real.new_ones(count, num_queries), real], dim=1)[:, None, :]
        if self.reuse_queries:
            states, _ = self.passes.run(self.passes.embed(ids), 0, visible[:, num_queries:], None, cache)
        else:
            both, _ = self.passes.run(self.passes.queries_and(ids), num_queries, visible, images)
            states = both[:, num_queries:]
        return self.passes.vocabulary_logits(states), ids.masked_fill(~real, -100)


def _draw(weights: list[float], uniform: float) -> int | None:
    """The column at which the running sum of the weights passes `uniform` times their total; None if all are 0."""
    threshold, passed, last = uniform * math.fsum(weights), 0.0, None
    for column, weight in enumerate(weights):
        passed += weight
        last = column if weight > 0 else last
        if weight > 0 and passed > threshold:
            return column
    return last


def _unit(values: Tensor) -> Tensor:
    return values / values.square().sum(dim=-1, keepdim=True).sqrt()


def _not_16_bits(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values
