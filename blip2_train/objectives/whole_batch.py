"""Contrast over all micro-batches of a step: what its first pass leaves for the second.

The first pass encodes all micro-batches without gradient, and takes the gradients of the contrastive loss with respect
to their features; the second encodes each micro-batch again and feeds these gradients back. Shape letters: B samples of
a micro-batch, k micro-batches, N of the global batch, Q queries, P patches, Dv tower width, E feature size, T text
tokens.

Source: Gao et al., 2021, arXiv:2101.06983 (GradCache), section 3.2. Here the tower's features are kept, so that a
frozen tower runs once, and hard negatives come from the whole batch, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blip2_train.objectives.contrastive import image_text_similarity
from blip2_train.objectives.negatives import MatchingPlan
from blip2_train.objectives.pairing import BatchLayout
from blip2_train.types import EncodedImages, TextTokens


@dataclass(slots=True, kw_only=True)
class WholeBatch:
    """What the first pass over a step leaves."""

    layout: BatchLayout
    """Of its samples."""
    patch_features: Tensor | None
    """`(kB, P, Dv)`, of this process's images; None if the tower trains, and so has to run again."""
    texts: TextTokens
    """`(kB, T)`, of this process."""
    plans: list[MatchingPlan]
    """The pairs of each micro-batch."""
    loss: Tensor
    """Scalar: the contrastive loss of all this process's rows."""
    image_gradient: Tensor
    """`(kB, Q, E)`: its gradient with respect to this process's image features."""
    text_gradient: Tensor
    """`(kB, E)`: with respect to its text features."""
    parameter_gradients: Sequence[tuple[Tensor, Tensor]]
    """Parameters that the contrastive loss depends on otherwise (the temperature), and its gradients."""
    mean_targets: Tensor
    """Scalar: tokens that are predicted in a micro-batch of a process, on average."""
    stats: dict[str, Tensor]
    """Of the contrast."""

    def rows(self, micro_batch: int) -> slice:
        """Those of a micro-batch."""
        return slice(micro_batch * self.layout.rows, (micro_batch + 1) * self.layout.rows)

    def texts_of(self, micro_batch: int) -> TextTokens:
        """`(B, T)`, of a micro-batch."""
        rows = self.rows(micro_batch)
        return TextTokens(self.texts.input_ids[rows], self.texts.attention_mask[rows])

    def contrastive_loss(self, micro_batch: int, image_features: Tensor, text_features: Tensor) -> Tensor:
        """The loss of all this process's rows, with the gradient of a micro-batch's share in it.

        The mean over the micro-batches has the gradient of the loss.

        Args:
            micro_batch: Which.
            image_features: `(B, Q, E)`, its image features.
            text_features: `(B, E)`, its text features.
        """
        rows = self.rows(micro_batch)
        fed_back = (image_features * self.image_gradient[rows]).sum() + (text_features * self.text_gradient[rows]).sum()
        fed_back = self.layout.micro_batches * fed_back
        for parameter, gradient in self.parameter_gradients:
            fed_back = fed_back + (parameter * gradient).sum()
        return fed_back - fed_back.detach() + self.loss


class EncodedMicroBatches:
    """Collects what the first pass needs of each micro-batch.

    Args:
        count: Number k of micro-batches.
        keep_features: Whether to keep the tower's features.
    """

    def __init__(self, count: int, keep_features: bool) -> None:
        self.count, self.keep_features = count, keep_features
        self.patch_features: Tensor | None = None
        """`(kB, P, Dv)`, if kept."""
        self._parts: list[tuple[Tensor, ...]] = []

    def add(self, images: EncodedImages, text_features: Tensor, texts: TextTokens, image_ids: Tensor) -> None:
        """Add the next micro-batch."""
        if self.keep_features:
            new = images.patch_features
            if self.patch_features is None:
                self.patch_features = new.new_empty((self.count * len(new), *new.shape[1:]))
            self.patch_features[len(self._parts) * len(new) :][: len(new)] = new
        self._parts.append((images.image_features, text_features, image_ids, *texts))

    def joined(self) -> tuple[Tensor, Tensor, Tensor, TextTokens]:
        """Image features `(kB, Q, E)`, text features `(kB, E)`, ids of images `(kB,)`, and texts `(kB, T)`."""
        images, features, ids, *texts = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        return images, features, ids, TextTokens(*texts)


def trained_parameters(*parts: Any) -> list[Tensor]:
    """Trainable parameters of those parts that are modules, or trainable tensors themselves, each once."""
    given = [part.parameters() if isinstance(part, nn.Module) else [part] for part in parts]
    unique = {id(tensor): tensor for tensors in given for tensor in tensors if isinstance(tensor, Tensor)}
    return [tensor for tensor in unique.values() if tensor.requires_grad]


def gradients_of(
    loss: Tensor, features: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Gradients with respect to features, and of the parameters that a loss depends on, each with its gradient."""
    gradients = torch.autograd.grad(loss, [*features, *parameters], allow_unused=True)
    first, others = gradients[: len(features)], gradients[len(features) :]
    of_features = [torch.zeros_like(f) if g is None else g for f, g in zip(features, first, strict=True)]
    return of_features, [(p, g) for p, g in zip(parameters, others, strict=True) if g is not None]


def chunked_similarity(image_features: Tensor, text_features: Tensor, chunks: int) -> Tensor:
    """`image_text_similarity` in chunks of images, so that products of single queries are never kept for all."""
    if chunks == 1:
        return image_text_similarity(image_features, text_features)
    parts: list[Any] = [
        checkpoint(image_text_similarity, part, text_features, use_reentrant=False, preserve_rng_state=False)
        for part in image_features.chunk(chunks)
    ]
    return torch.cat(parts)
