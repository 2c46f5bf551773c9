"""Recall@k of image-text retrieval, both ways.

Shape letters: M images, N texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

import torch
from torch import Tensor

from blip2_train.evaluation.metrics.metric_format import MetricFormat, percent

_ROWS = 256
"""Images at a time: what is computed beside the scores stays small (COCO's 5,000 x 25,010 scores are 500 MB)."""


def recall_formats(ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, MetricFormat]:
    """How recall at these cut-offs is shown, by name: a column for each k, a row for each direction."""
    directions = {"image_to_text": "image→text", "text_to_image": "text→image"}
    formats = {f"{name}_r{k}": percent(f"R@{k}", row=row) for name, row in directions.items() for k in ks}
    return {**formats, "recall_mean": percent("recall mean")}


def retrieval_recall(similarity: Tensor, image_of_text: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Share of queries with a right answer among the k most similar, in percent.

    Args:
        similarity: `(M, N)`, any real score; every image has at least one text.
        image_of_text: `(N,)`, int64: row of the image that each text describes.
        ks: Cut-offs.

    Returns:
        `image_to_text_r<k>` and `text_to_image_r<k>`, each in percent. An image counts as found when any of its texts
        is among the first k. Ties and NaN count against the query: a right answer must beat all wrong ones before it.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> retrieval_recall(torch.tensor([[3.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 1]), ks=(1, 2))
        {'image_to_text_r1': 50.0, 'image_to_text_r2': 100.0, 'text_to_image_r1': 50.0, 'text_to_image_r2': 100.0}
    """
    images, texts = similarity.shape
    if image_of_text.shape != (texts,) or int(image_of_text.max()) >= images or int(image_of_text.min()) < 0:
        raise ValueError(f"similarity is {images} x {texts}, but image_of_text has shape {tuple(image_of_text.shape)}")
    device = similarity.device
    image_of_text = image_of_text.to(device)
    own = similarity[image_of_text, torch.arange(texts, device=device)]
    best = own.new_full((images,), -torch.inf).scatter_reduce(0, image_of_text, own, "amax")
    texts_ahead = torch.empty(images, dtype=torch.long, device=device)
    images_ahead = torch.full((texts,), -1, device=device)  # a text's own image is not ahead of itself
    for rows in torch.arange(images, device=device).split(_ROWS):
        block = similarity[rows[0] : rows[-1] + 1]
        wrong = image_of_text[None, :] != rows[:, None]
        # "Not below" instead of "at least": a score that is no number counts against the query, too.
        texts_ahead[rows] = (~(block < best[rows, None]) & wrong).sum(dim=1)
        images_ahead += (~(block < own)).sum(dim=0)
    return recall_at({"image_to_text": texts_ahead, "text_to_image": images_ahead}, ks)


def chance_recall(texts_of_images: Sequence[int], ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """The expected recall of a random order, in percent, by the names of `retrieval_recall`.

    Args:
        texts_of_images: How many texts each of the M images has.
        ks: Cut-offs.

    Example:
        >>> chance_recall([1, 1, 1, 1], ks=(1, 2))
        {'image_to_text_r1': 25.0, 'image_to_text_r2': 50.0, 'text_to_image_r1': 25.0, 'text_to_image_r2': 50.0}
    """
    images, texts = len(texts_of_images), sum(texts_of_images)
    missed = {
        k: sum(comb(texts - own, k) for own in texts_of_images) / (images * comb(texts, min(k, texts))) for k in ks
    }
    by_image = {f"image_to_text_r{k}": 100.0 * (1 - missed[k]) for k in ks}
    return by_image | {f"text_to_image_r{k}": 100.0 * min(1.0, k / images) for k in ks}


def recall_at(ahead: Mapping[str, Tensor], ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Share of queries with fewer than k wrong answers ahead of the right one, in percent, as `<name>_r<k>`.

    Example:
        >>> recall_at({"image_to_text": torch.tensor([0, 3])}, ks=(1, 5))
        {'image_to_text_r1': 50.0, 'image_to_text_r5': 100.0}
    """
    return {f"{name}_r{k}": 100.0 * (counts < k).double().mean().item() for name, counts in ahead.items() for k in ks}


def pair_recall(
    similarity: Tensor, image_ids: Tensor, text_image_ids: Tensor, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """`retrieval_recall` of rows among which an image may come twice: it counts once, by its first row.

    Args:
        similarity: `(R, N)`, a row for each time that an image was seen.
        image_ids: `(R,)`, int64.
        text_image_ids: `(N,)`, int64: which image each text belongs to.
        ks: Cut-offs.
    """
    known, rows = torch.unique(image_ids, return_inverse=True)
    positions = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(known, len(rows)).scatter_reduce_(0, rows, positions, "amin")
    return retrieval_recall(similarity[first], torch.searchsorted(known, text_image_ids), ks)
