"""The rows of an index that are nearest to a query: exactly, or by an index of FAISS.

Images are compared with texts by the cosine of the text and the best query, as in training; images with images by the
mean over all queries of the cosine of one query's features of both; texts with texts by their cosine. Shape letters: N
rows of the index, M queries that are searched for, Q queries of an image, E feature size, K length of a list, V vectors
of the index, D their size, G vectors of a row, H of what is searched for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from blip2_train.errors import ConfigError
from blip2_train.evaluation.shortlist import BLOCK_BYTES, NearestLists
from blip2_train.system.extras import import_extra


class _Vectors(NamedTuple):
    """Both sides as vectors: a similarity is `scale` times the largest inner product of their vectors."""

    rows: Tensor
    """`(N, G, D)`."""
    queries: Tensor
    """`(M, H, D)`."""
    scale: float


def _vectors(features: Tensor, query_features: Tensor) -> _Vectors:
    """Features `(N, Q, E)` or `(N, E)` of the index and those that are searched for, `(M, Q, E)` or `(M, E)`."""
    if features.ndim == 3 and query_features.ndim == 3:
        return _Vectors(features.flatten(1)[:, None], query_features.flatten(1)[:, None], 1 / features.shape[1])
    rows = features if features.ndim == 3 else features[:, None]
    return _Vectors(rows, query_features if query_features.ndim == 3 else query_features[:, None], 1.0)


class ExactNearest:
    """Compares with every row, block by block; of equal rows the first comes first.

    Args:
        features: Of the index, `(N, Q, E)` or `(N, E)`.
        block_bytes: Most bytes of the products of a block.
    """

    def __init__(self, features: Tensor, block_bytes: int = BLOCK_BYTES) -> None:
        self._features, self._block_bytes = features, block_bytes

    def __call__(self, query_features: Tensor, k: int) -> NearestLists:
        """The K = min(k, N) nearest rows for features `(M, Q, E)` or `(M, E)`."""
        rows, queries, scale = _vectors(self._features, query_features)
        count, own, _ = rows.shape
        at_once = max(1, self._block_bytes // (4 * own * queries.shape[0] * queries.shape[1]))
        best: NearestLists | None = None
        for first in range(0, count, at_once):
            block = rows[first : first + at_once]
            products = queries.flatten(0, 1) @ block.flatten(0, 1).T
            similarity = products.reshape(*queries.shape[:2], len(block), own).amax(dim=(1, 3)) * scale
            indices = torch.arange(first, first + len(block)).expand(len(queries), -1)
            lists = NearestLists.of(similarity, indices, k)
            best = lists if best is None else NearestLists.merged([best, lists], k)
        assert best is not None
        return best


class FaissNearest:
    """The same by FAISS: `Flat` compares with every row, others (`HNSW32`, `IVF1024,Flat`) with some, and faster.

    Args:
        features: Of the index, `(N, Q, E)` or `(N, E)`.
        factory: Kind of index, as `faiss.index_factory` takes it.

    Raises:
        ConfigError: if FAISS is not installed, or the index cannot be built.
    """

    def __init__(self, features: Tensor, factory: str) -> None:
        self._faiss = import_extra("faiss", f"--faiss {factory}", "or leave --faiss out")
        self._features, self._factory = features, factory
        self._built: dict[int, Any] = {}

    def __call__(self, query_features: Tensor, k: int) -> NearestLists:
        """At most k nearest rows; where FAISS gives fewer, the rest of a list has the index -1."""
        rows, queries, scale = _vectors(self._features, query_features)
        count, own, _ = rows.shape
        k = min(k, count)
        index = self._index(rows)
        products, vectors_of = index.search(queries.flatten(0, 1).contiguous().numpy(), min(k * own, count * own))
        indices = torch.full((len(queries), k), -1)
        values = torch.full((len(queries), k), -torch.inf)
        for number in range(len(queries)):
            part = slice(number * queries.shape[1], (number + 1) * queries.shape[1])
            best: dict[int, float] = {}
            for vector, product in zip(vectors_of[part].flat, products[part].flat, strict=True):
                if vector >= 0:
                    row = int(vector) // own
                    best[row] = max(best.get(row, -torch.inf), float(product) * scale)
            nearest = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
            for column, (row, value) in enumerate(nearest):
                indices[number, column], values[number, column] = row, value
        return NearestLists(indices, values)

    def _index(self, rows: Tensor) -> Any:
        """FAISS's index of all vectors, built once for each size of them."""
        size = rows.shape[2]
        if size not in self._built:
            vectors = rows.flatten(0, 1).contiguous().numpy()
            try:
                index = self._faiss.index_factory(size, self._factory, self._faiss.METRIC_INNER_PRODUCT)
                if not index.is_trained:
                    index.train(vectors)
                index.add(vectors)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1][-150:]
                raise ConfigError(
                    f"--faiss {self._factory}: FAISS cannot build it for {len(vectors):,} vectors ({reason}); use "
                    "Flat, HNSW32, or another that its index_factory knows, or leave it out"
                ) from None
            self._built[size] = index
        return self._built[size]
