"""Image-text contrast (ITC): match each image to its caption among those of all processes.

Shape letters: B batch per process, N over all processes, Q queries, E feature size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def image_text_similarity(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Cosine similarity between every image and every text, best query wins.

    Args:
        image_features: `(M, Q, E)`, float, unit length along E.
        text_features: `(N, E)`, float, unit length along E.

    Returns:
        `(M, N)` similarities in [-1, 1], before division by the temperature. Same dtype as the inputs.

    Raises:
        ValueError: if the feature sizes differ.

    Source: BLIP-2 (Li et al., 2023, arXiv:2301.12597), section 3.2, "Image-Text Contrastive Learning". One matrix
    product over all queries, where the released code broadcasts one product per pair.

    Example:
        >>> images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])           # one image, two queries
        >>> image_text_similarity(images, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        tensor([[1., 0.]])
    """
    if image_features.shape[-1] != text_features.shape[-1]:
        raise ValueError(
            f"image features have size {image_features.shape[-1]}, text features {text_features.shape[-1]}; "
            "project both to the same size"
        )
    per_query = image_features.flatten(0, 1) @ text_features.T
    similarity: Tensor = per_query.unflatten(0, image_features.shape[:2]).amax(dim=1)
    return similarity


def contrastive_targets(positives: Tensor, smoothing: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Target distributions of the contrastive loss.

    Args:
        positives: `(B, N)`, bool, True where row and column belong together: one per row, or all of an image.
        smoothing: Share of the mass that is spread evenly over all columns.
        dtype: Of the result.

    Returns:
        `(B, N)`, rows sum to 1. Without repeated images this is ordinary label smoothing.

    Example:
        >>> contrastive_targets(torch.tensor([[False, True]]), 0.1)
        tensor([[0.0500, 0.9500]])
    """
    target = positives.to(dtype)
    return (1 - smoothing) * target / target.sum(dim=1, keepdim=True) + smoothing / positives.shape[1]


def contrastive_loss(image_to_text: Tensor, text_to_image: Tensor, targets: Tensor) -> Tensor:
    """Mean of the two directions' cross-entropies.

    Args:
        image_to_text: `(B, N)` logits (similarity / temperature) of this process's images against all texts.
        text_to_image: `(B, N)` logits of this process's texts against all images.
        targets: `(B, N)`, rows sum to 1.

    Returns:
        Scalar: nats per row, mean over B and both directions. Chance is ln N.
    """
    return (F.cross_entropy(image_to_text, targets) + F.cross_entropy(text_to_image, targets)) / 2
