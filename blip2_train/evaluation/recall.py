"""Recall@k of image-text retrieval, both ways.

Shape letters: M pictures, N texts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def retrieval_recall(similarity: Tensor, image_of_text: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Share of queries with a right answer among the k most similar, in percent.

    Args:
        similarity: `(M, N)`, any real score; every picture has at least one text.
        image_of_text: `(N,)`, int64: row of the picture that each text describes.
        ks: Cut-offs.

    Returns:
        `image_to_text_r<k>` and `text_to_image_r<k>`, each in percent. A picture counts as found when any of its texts
        is among the first k. Ties count against the query: a right answer must beat wrong answers of the same score.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> retrieval_recall(torch.tensor([[3.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 1]), ks=(1, 2))
        {'image_to_text_r1': 50.0, 'image_to_text_r2': 100.0, 'text_to_image_r1': 50.0, 'text_to_image_r2': 100.0}
    """
    images, texts = similarity.shape
    if image_of_text.shape != (texts,) or int(image_of_text.max()) >= images:
        raise ValueError(f"similarity is {images} x {texts}, but image_of_text has shape {tuple(image_of_text.shape)}")
    right = torch.arange(images, device=similarity.device)[:, None] == image_of_text[None, :]
    scores: dict[str, float] = {}
    for name, values, relevant in (
        ("image_to_text", similarity, right),
        ("text_to_image", similarity.T, right.T),
    ):
        best = values.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
        ahead = ((values >= best) & ~relevant).sum(dim=1)
        for k in ks:
            scores[f"{name}_r{k}"] = 100.0 * (ahead < k).double().mean().item()
    return scores
