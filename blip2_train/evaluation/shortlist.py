"""The most similar texts of every image and images of every text, computed block by block.

The order does not depend on how images are split over processes: of equal values the lower index comes first. Memory
grows with images and with texts, not with their product. Shape letters: M images, N texts, B images of a block, Q
queries, E feature size, K length of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from blip2_train.objectives.contrastive import image_text_similarity

BLOCK_BYTES = 2**27
"""Of the similarities of a block, and of those of single queries that they are made of. Larger blocks need more memory
and hardly less time."""
_TEXTS_AT_ONCE = 4096
"""Texts whose lists are merged at a time."""


class NearestLists(NamedTuple):
    """For each of R rows its K nearest, nearest first."""

    indices: Tensor
    """`(R, K)`, int64."""
    values: Tensor
    """`(R, K)`, float32."""

    @classmethod
    def of(cls, values: Tensor, candidates: Tensor, k: int) -> Self:
        """The k largest of the similarities `(R, C)` to `candidates` `(R, C)`, which come in any order, none twice."""
        if k >= values.shape[1]:
            return cls(*_in_order(candidates, values))
        largest, columns = values.topk(k + 1, dim=1)
        indices, nearest = candidates.gather(1, columns[:, :k]), largest[:, :k].clone()
        equal = ~(
            largest[:, :-1] > largest[:, 1:]
        )  # topk leaves open which of equal values it takes, and in which order
        for tied, source in ((equal[:, :-1].any(dim=1), (indices, nearest)), (equal[:, -1], (candidates, values))):
            if len(rows := tied.nonzero()[:, 0]):
                ordered = _in_order(source[0][rows], source[1][rows])
                indices[rows], nearest[rows] = ordered[0][:, :k], ordered[1][:, :k]
        return cls(indices, nearest)

    @classmethod
    def merged(cls, parts: Sequence[NearestLists], k: int) -> Self:
        """The k nearest of all parts, which have the same rows and no index twice."""
        indices, values = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return cls.of(values, indices, k)

    @classmethod
    def stacked(cls, parts: Sequence[NearestLists]) -> Self:
        """The rows of all parts, one after the other."""
        return cls(*(torch.cat(part) for part in zip(*parts, strict=True)))

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
        self.images: list[Tensor] = []
        """Indices `(B,)` of each block's images."""
        self.of_images: list[NearestLists] = []
        """Of each block."""
        self.of_texts: NearestLists | None = None

    def add(self, images: Tensor, similarity: Tensor) -> None:
        """Add images by their indices `(B,)`, int64, and their similarities `(B, N)` to all texts."""
        count, texts = similarity.shape
        self.images.append(images)
        self.of_images.append(NearestLists.of(similarity, torch.arange(texts).expand(count, -1), self.k))
        merged = []
        for first in range(0, texts, _TEXTS_AT_ONCE):
            columns = similarity[:, first : first + _TEXTS_AT_ONCE].T.contiguous()
            block = NearestLists(images.expand(len(columns), -1), columns)
            if self.of_texts is None:
                lists = NearestLists.merged([block], self.k)
            else:
                before = NearestLists(*(part[first : first + _TEXTS_AT_ONCE] for part in self.of_texts))
                lists = NearestLists.merged([before, block], self.k)
            merged.append(lists)
        self.of_texts = NearestLists.stacked(merged)


def join(parts: Sequence[Shortlists]) -> tuple[NearestLists, NearestLists]:
    """Lists of texts for all M images, in order, and of images for all N texts, from those of all processes."""
    order = torch.cat([images for part in parts for images in part.images]).argsort()
    of_images = NearestLists.stacked([lists for part in parts for lists in part.of_images])
    of_texts = [part.of_texts for part in parts if part.of_texts is not None]
    everywhere = of_texts[0] if len(of_texts) == 1 else NearestLists.merged(of_texts, parts[0].k)
    return NearestLists(*(part[order] for part in of_images)), everywhere


def similarity_blocks(images: Mapping[int, Tensor], texts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Similarities of images to all texts, block by block; every call computes the same bits.

    Args:
        images: Features `(B', Q, E)`, float, of consecutive images, by the index of the first.
        texts: Features `(N, E)`, float32.

    Yields:
        Indices `(B,)` of images, ascending over all blocks, and their similarities `(B, N)`, float32.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    row_bytes = 4 * max(1, len(texts))
    for first in sorted(images):
        features = images[first]
        at_once = max(1, BLOCK_BYTES // (row_bytes * features.shape[1]))
        for start in range(0, len(features), at_once):
            chosen = features[start : start + at_once].float()
            indices = torch.arange(first + start, first + start + len(chosen))
            parts.append((indices, image_text_similarity(chosen, texts)))
            if sum(len(part) for part, _ in parts) * row_bytes >= BLOCK_BYTES:
                yield _joined(parts)
    if parts:
        yield _joined(parts)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One block of all parts, which are given up."""
    indices = torch.cat([part for part, _ in parts])
    block = torch.empty(len(indices), parts[0][1].shape[1])
    for rows in torch.tensor([len(part) for part, _ in parts]).cumsum(0).tolist():
        _, part = parts.pop(0)
        block[rows - len(part) : rows] = part
    return indices, block


def _in_order(indices: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Both `(R, C)` by descending value, and by ascending index where values are equal."""
    ascending = indices.argsort(dim=1)
    values = values.gather(1, ascending)
    order = values.argsort(dim=1, descending=True, stable=True)
    return indices.gather(1, ascending.gather(1, order)), values.gather(1, order)
