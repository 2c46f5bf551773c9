"""The most similar texts of every image and images of every text, computed block by block.

The order does not depend on how images are split over processes: of equal values the lower index comes first. Shape
letters: M images, N texts, B images of a block, K length of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class NearestLists(NamedTuple):
    """For each of R rows its K nearest, nearest first."""

    indices: Tensor
    """`(R, K)`, int64."""
    values: Tensor
    """`(R, K)`, float32."""

    @classmethod
    def of(cls, values: Tensor, candidates: Tensor, k: int) -> Self:
        """The k largest of the similarities `(R, C)` to `candidates` `(R, C)`, indices ascending in each row."""
        order = values.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return cls(candidates.gather(1, order), values.gather(1, order))

    @classmethod
    def merged(cls, parts: Sequence[NearestLists], k: int) -> Self:
        """The k nearest of all parts, which have the same rows and no index twice."""
        indices, values = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        ascending = indices.argsort(dim=1)
        return cls.of(values.gather(1, ascending), indices.gather(1, ascending), k)

    def inverted(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """For each index below `count` the rows that list it, ascending, and the values they list it with."""
        indices = self.indices.flatten()
        order = indices.argsort(stable=True)
        rows = torch.arange(len(self.indices)).repeat_interleave(self.indices.shape[1])[order]
        sizes = torch.bincount(indices, minlength=count).tolist()
        return list(zip(rows.split(sizes), self.values.flatten()[order].split(sizes), strict=True))


class Shortlists:
    """Collects the lists of the images of one process, and of all texts among these images.

    Args:
        k: K.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.of_images: dict[int, NearestLists] = {}
        """By the index of a block's first image."""
        self.of_texts: NearestLists | None = None

    def add(self, first: int, similarity: Tensor) -> None:
        """Add images `first` … `first + B - 1`, given by `(B, N)` similarities."""
        images, texts = similarity.shape
        self.of_images[first] = NearestLists.of(similarity, torch.arange(texts).expand(images, -1), self.k)
        block = NearestLists(torch.arange(first, first + images).expand(texts, -1), similarity.T)
        self.of_texts = NearestLists.merged([block] if self.of_texts is None else [self.of_texts, block], self.k)


def join(parts: Sequence[Shortlists]) -> tuple[NearestLists, NearestLists]:
    """Lists of texts for all M images, in order, and of images for all N texts, from those of all processes."""
    blocks = {first: lists for part in parts for first, lists in part.of_images.items()}
    ordered = [blocks[first] for first in sorted(blocks)]
    of_texts = [part.of_texts for part in parts if part.of_texts is not None]
    return NearestLists(*(torch.cat(part) for part in zip(*ordered, strict=True))), NearestLists.merged(
        of_texts, parts[0].k
    )
