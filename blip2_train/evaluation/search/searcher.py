"""Searches an index: images by text or by image, and texts by image, which matching may rank again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput, ImageInputs, listed
from blip2_train.data.storage.web import is_incomplete
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.generation import batches
from blip2_train.evaluation.inference import AT_ONCE, Blip2
from blip2_train.evaluation.pair_scoring import MatchScorer
from blip2_train.evaluation.search.index import SearchIndex
from blip2_train.evaluation.search.nearest import ExactNearest, FaissNearest
from blip2_train.evaluation.shortlist import NearestLists


class Hit(NamedTuple):
    """A row of the index that was found."""

    row: int
    """Of the index, from 0."""
    name: str
    """Its image's path, or its text."""
    similarity: float
    """In [-1, 1], see `evaluation.search.nearest`."""
    itm: float | None = None
    """Probability of a match, in [0, 1], if it was re-ranked."""


class Searcher:
    """A model and an index that it computed, ready for any number of searches.

    Args:
        model: A model of images and texts.
        index: Computed by it.
        faiss: Kind of FAISS's index, see `FaissNearest`; None = exact search without FAISS.
        image_of: From the name of an image in the index to what the model reads again when it re-ranks; None = the
            name is a path or an address.
        what: The index, for messages.

    Raises:
        CheckpointMismatch: if another model computed the index.
        ConfigError: if the model reads no texts, or FAISS is needed and not installed.
    """

    def __init__(
        self,
        model: Blip2,
        index: SearchIndex,
        *,
        faiss: str | None = None,
        image_of: Callable[[str], ImageInput] | None = None,
        what: object = "the index",
    ) -> None:
        index.check_model(model, what)
        self.model, self.index = model, index
        self._image_of = image_of
        self._nearest = ExactNearest(index.features) if faiss is None else FaissNearest(index.features, faiss)

    def by_texts(self, texts: str | Sequence[str], k: int = 10, *, rerank: int = 0) -> list[list[Hit]]:
        """The k nearest rows for each text, best first.

        Args:
            texts: What is searched for.
            k: Length of a list.
            rerank: How many of the nearest are put in the order of their probability of a match, which reads their
                images again; 0 = none.

        Raises:
            ConfigError: if a text is empty, or `rerank` is not 0 and less than k, or the index is of texts.
            ShardError: if an image cannot be read again.
        """
        lines = [texts] if isinstance(texts, str) else list(texts)
        self._check(k, rerank, "image", "texts")
        lists = self._nearest(self.model.embed(texts=lines)["text_features"], max(k, rerank))
        return [
            self._best(hits, k, rerank, partial(self._match_images, text))
            for hits, text in zip(self._hits(lists), lines, strict=True)
        ]

    def by_images(self, images: ImageInputs, k: int = 10, *, rerank: int = 0) -> list[list[Hit]]:
        """The same for each image, of which only texts can be re-ranked.

        Raises:
            ConfigError: if `rerank` is not 0 and less than k, or the index is of images.
            ShardError: naming an image that cannot be read.
        """
        inputs = listed(images)
        self._check(k, rerank, "text", "images")
        lists = self._nearest(self.model.embed(inputs)["image_features"], max(k, rerank))
        return [
            self._best(hits, k, rerank, partial(self._match_texts, image))
            for hits, image in zip(self._hits(lists), inputs, strict=True)
        ]

    def _check(self, k: int, rerank: int, kind: str, by: str) -> None:
        if k < 1:
            raise ConfigError(f"the number of results must be at least 1, got {k}")
        if rerank and rerank < k:
            raise ConfigError(
                f"a shortlist of {rerank} to re-rank is shorter than the {k} results; re-rank at least {k}"
            )
        if rerank and self.index.kind != kind:
            raise ConfigError(
                f"re-ranking judges pairs of an image and a text, but the index is of {self.index.kind}s and searched "
                f"by {by}; leave it out"
            )

    def _hits(self, lists: NearestLists) -> list[list[Hit]]:
        return [
            [Hit(row, self.index.names[row], value) for row, value in zip(*pair, strict=True) if row >= 0]
            for pair in zip(lists.indices.tolist(), lists.values.tolist(), strict=True)
        ]

    def _best(self, hits: list[Hit], k: int, rerank: int, log_odds: Callable[[list[Hit]], list[float]]) -> list[Hit]:
        if not rerank:
            return hits[:k]
        odds = log_odds(hits)
        order = sorted(range(len(hits)), key=lambda index: -odds[index])  # of equal ones the more similar stays first
        chances = torch.tensor(odds, dtype=torch.float64).sigmoid().tolist()
        return [Hit(*hits[index][:3], itm=chances[index]) for index in order[:k]]

    def _match_images(self, text: str, hits: list[Hit]) -> list[float]:
        scorer, odds = MatchScorer(self.model, "itm"), list[float]()
        for rows in batches(len(hits), AT_ONCE):
            images = [self._image(hit.name) for hit in hits[rows]]
            odds += [one for (one,) in scorer(images, [[text]] * len(images))]
        return odds

    def _match_texts(self, image: ImageInput, hits: list[Hit]) -> list[float]:
        return MatchScorer(self.model, "itm")([image], [[hit.name for hit in hits]])[0]

    def _image(self, name: str) -> Tensor:
        if self._image_of is None and is_incomplete(name):
            raise ShardError(
                f"re-ranking reads the images of the index again, but names keep no keys of addresses, and {name} is "
                "one without its user or what followed its ?; embed a file of it, or search without re-ranking"
            )
        try:
            return self.model.processor.image(name if self._image_of is None else self._image_of(name))
        except ShardError as error:
            raise ShardError(f"re-ranking reads the images of the index again: {error}") from None
