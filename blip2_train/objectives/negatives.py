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


class MatchingPlan(NamedTuple):
    """Which pairs each process matches in one micro-batch, known to every process; all tensors are on the CPU."""

    texts: list[Tensor]
    """For each process the samples whose texts it fetches: negative texts of its B images, then those of `pairs`."""
    pairs: NegativeImagePairs
    """The pairs of texts and negative images."""
    used: Tensor
    """`(2B + M,)`, bool: which of this process's pairs are in use."""
    mean_used: float
    """Pairs in use in a micro-batch of a process, on average."""


def plan_matching(choices: Choices, layout: BatchLayout, limited: bool = True) -> list[MatchingPlan]:
    """The pairs of each micro-batch; every process must call it. Waits for the device.

    Args:
        choices: Hard negatives of this process's samples.
        layout: Of all samples.
        limited: See `assign_cells`.
    """
    texts, images, usable = layout.in_order(gather_rows(torch.stack(choices, dim=1))).cpu().unbind(1)
    usable = usable.bool()
    used = layout.total + 2 * int(usable.sum())  # a sample has a pair, and two more if it has negatives
    mean_used = used / (layout.processes * layout.micro_batches)
    cells = assign_cells(images, layout, limited)
    plans = []
    for micro_batch in range(layout.micro_batches):
        pairs = pairs_of(micro_batch, rank(), images, cells, layout)
        own = [layout.samples_of(process)[micro_batch] for process in range(layout.processes)]
        requests = [torch.cat([texts[mine], others]) for mine, others in zip(own, pairs.texts, strict=True)]
        mine = own[rank()]
        all_used = torch.cat([torch.ones_like(usable[mine]), usable[mine], usable[pairs.texts[rank()]]])
        plans.append(MatchingPlan(requests, pairs, all_used, mean_used))
    return plans


def pairs_to_match(
    model: ImageTextEncoder, images: EncodedImages, texts: TextTokens, choices: Choices, layout: BatchLayout
) -> PairsToMatch:
    """The pairs of this process, if each has one micro-batch; every process must call it.

    Args:
        model: Projects the features of images from elsewhere.
        images: This process's images.
        texts: Its texts, trimmed alike on every process.
        choices: Its hard negatives.
        layout: Of all samples.
    """
    if layout.processes == 1:
        return _all_here(images, texts, choices)
    (plan,) = plan_matching(choices, layout)
    return planned_pairs(model, images, images.patch_features, texts, texts, plan, layout)


def planned_pairs(
    model: ImageTextEncoder,
    images: EncodedImages,
    patch_features: Tensor,
    texts: TextTokens,
    all_texts: TextTokens,
    plan: MatchingPlan,
    layout: BatchLayout,
) -> PairsToMatch:
    """The pairs of this process in one micro-batch; every process must call it.

    Args:
        model: Projects the features of images from elsewhere.
        images: Of the micro-batch.
        patch_features: `(kB, P, Dv)`, of all this process's images.
        texts: Of the micro-batch, trimmed alike on every process.
        all_texts: `(kB, T)`, of this process.
        plan: Of the micro-batch.
        layout: Of all samples.
    """
    fetched = fetch_texts(all_texts, [layout.as_gathered(samples) for samples in plan.texts])
    image_kvs = [images.image_kv.repeat(2), *negative_image_kvs(model, images, patch_features, plan.pairs, layout)]
    features = images.image_features
    weights = to_device(plan.used.to(features.dtype), features.device)
    both = TextTokens(*(torch.cat([mine, others]) for mine, others in zip(texts, fetched, strict=True)))
    return PairsToMatch(image_kvs, both, weights, weights.new_full((), plan.mean_used))


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
