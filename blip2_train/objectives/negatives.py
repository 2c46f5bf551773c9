"""The pairs that a process matches: its own, and those with hard negatives, whose features or texts may lie elsewhere.

Shape letters: B batch per process, N over all processes, T text tokens, M pairs with negative images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from blip2_train.distributed import exchange_rows, gather_rows, rank, to_device
from blip2_train.objectives.pairing import BatchLayout, NegativeImagePairs, assign_cells, pairs_of
from blip2_train.types import EncodedImages, ImageKeyValues, ImageTextEncoder, TextTokens


class Choices(NamedTuple):
    """The hard negatives of samples."""

    texts: Tensor
    """`(B,)`, int64: the negative text of each image."""
    images: Tensor
    """`(B,)`, int64: the negative image of each text."""
    usable: Tensor
    """`(B,)`, bool: whether there was any to choose; where not, both must not be used."""


class PairsToMatch(NamedTuple):
    """Pairs of images and texts: own image and own text, own image and negative text, negative image and text."""

    image_kvs: Sequence[ImageKeyValues]
    """Their images."""
    texts: TextTokens
    """`(2B + M, T)`."""
    weights: Tensor
    """`(2B + M,)`, in the dtype of image features: 0 for pairs that are not in use, else 1."""
    mean_weight: Tensor
    """Scalar: their sum, averaged over processes."""


def pairs_to_match(
    model: ImageTextEncoder, images: EncodedImages, texts: TextTokens, choices: Choices, layout: BatchLayout
) -> PairsToMatch:
    """The pairs of this process; every process must call it.

    Args:
        model: Projects the features of images from elsewhere.
        images: This process's images.
        texts: Its texts, trimmed alike on every process.
        choices: Its hard negatives.
        layout: Of all samples.
    """
    if layout.processes == 1:
        return _all_here(images, texts, choices)
    known = known_choices(choices, layout)
    pairs = pairs_of(0, rank(), known.images, assign_cells(known.images, layout), layout)
    requests = [torch.cat([known.texts[layout.samples_of(r)[0]], pairs.texts[r]]) for r in range(layout.processes)]
    fetched = fetch_texts(texts, [layout.as_gathered(samples) for samples in requests])
    image_kvs = [images.image_kv.repeat(2), *negative_image_kvs(model, images, images.patch_features, pairs, layout)]
    used = known.usable[torch.cat([layout.samples_of(rank())[0], pairs.texts[rank()]])]
    weights = torch.cat([torch.ones(layout.rows, dtype=torch.bool), used]).to(images.image_features.dtype)
    weights = to_device(weights, images.image_features.device)
    both = TextTokens(*(torch.cat(parts) for parts in zip(texts, fetched, strict=True)))
    return PairsToMatch(image_kvs, both, weights, weights.new_full((), mean_weight(known, layout)))


def known_choices(choices: Choices, layout: BatchLayout) -> Choices:
    """The hard negatives of all samples `(N,)` in order, on the CPU; waits for the device."""
    texts, images, usable = layout.in_order(gather_rows(torch.stack(choices, dim=1))).cpu().unbind(1)
    return Choices(texts, images, usable.bool())


def mean_weight(known: Choices, layout: BatchLayout) -> float:
    """Pairs in use per micro-batch of a process, on average: a sample has one, and two more if it has negatives."""
    used = layout.total + 2 * int(known.usable.sum())
    return used / (layout.processes * layout.micro_batches)


def fetch_texts(texts: TextTokens, requests: Sequence[Tensor]) -> TextTokens:
    """Texts `(R, T)` from whichever processes hold them, see `exchange_rows`."""
    both = torch.cat([texts.input_ids, texts.attention_mask.to(texts.input_ids.dtype)], dim=1).int()
    input_ids, attention_mask = exchange_rows(both, requests).chunk(2, dim=1)
    return TextTokens(input_ids.to(texts.input_ids.dtype), attention_mask.bool())


def negative_image_kvs(
    model: ImageTextEncoder,
    images: EncodedImages,
    patch_features: Tensor,
    pairs: NegativeImagePairs,
    layout: BatchLayout,
) -> list[ImageKeyValues]:
    """Keys and values of the negative images of `pairs`; every process must call it.

    Those of images of this micro-batch are there. Of others the tower's features travel, before `ln_vision`: it has the
    same weights on every process, and with those its gradient is averaged over processes.

    Args:
        model: Projects features.
        images: Of this micro-batch.
        patch_features: `(kB, P, Dv)`, of all this process's images.
        pairs: Of this micro-batch.
        layout: Of all samples.
    """
    device, image_kvs = patch_features.device, []
    if len(pairs.own_images):
        image_kvs.append(images.image_kv.select(to_device(pairs.own_images, device)))
    if any(len(samples) for samples in pairs.fetched):  # all must take part, as gradients may travel back
        requests = [layout.as_gathered(samples) for samples in pairs.fetched]
        arrived = exchange_rows(patch_features, requests)
        if len(arrived):
            projected = model.project_image(arrived)
            image_kvs.append(projected.select(to_device(pairs.fetched_images, device)))
        elif arrived.requires_grad:
            image_kvs[0] = _tied(image_kvs[0], arrived)
    return image_kvs


def _tied(image_kv: ImageKeyValues, nothing: Tensor) -> ImageKeyValues:
    """The same, with a tensor of no rows in its graph, so that the exchange that made it also runs backward."""
    return replace(image_kv, keys=(image_kv.keys[0] + nothing.sum(), *image_kv.keys[1:]))


def _all_here(images: EncodedImages, texts: TextTokens, choices: Choices) -> PairsToMatch:
    """The pairs of one process that trains alone, without waiting for the device."""
    ids, mask = (torch.cat([rows, rows.index_select(0, choices.texts), rows]) for rows in texts)
    usable = choices.usable.to(images.image_features.dtype)
    weights = torch.cat([torch.ones_like(usable), usable, usable])
    image_kvs = [images.image_kv.repeat(2), images.image_kv.select(choices.images)]
    return PairsToMatch(image_kvs, TextTokens(ids, mask), weights, weights.sum())
