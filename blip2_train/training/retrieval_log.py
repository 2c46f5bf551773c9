"""Shows what a few held-out texts find among held-out images: as an image in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.evaluation.figures.retrieval import RetrievedImages, retrieval_figure
from blip2_train.evaluation.held_out_pairs import PairSimilarity
from blip2_train.system.atomic_write import write_atomically

RETRIEVAL = "retrieval.png"
GALLERY, TEXTS, BEST = 256, 6, 5
"""Images among which is searched, the first of the first process; texts that search; images shown of each."""
_SIDE = 96


class RetrievalLog:
    """Writes `retrieval.png`: a row for each text with the images that fit it best, the right one marked.

    Args:
        folder: The run folder.
        mean: Per channel, that pixel values were normalised with.
        std: Per channel.
        read: From ids `(T,)` of a text, without padding, to the text.
    """

    def __init__(
        self, folder: Path, mean: Sequence[float], std: Sequence[float], read: Callable[[Tensor], str]
    ) -> None:
        self.folder, self._read = folder, read
        self._mean, self._std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        self._images: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Keep images `(B, 3, H, W)`, normalised, small, as long as the gallery has room."""
        room = GALLERY - sum(map(len, self._images))
        if room > 0:
            small = F.interpolate(images[:room].float(), (_SIDE, _SIDE), mode="bilinear", antialias=True).cpu()
            self._images.append((small * self._std + self._mean).clamp(0, 1))

    def write(self, step: int, similarity: PairSimilarity) -> None:
        """Write the image after `step` optimiser steps, and let the images go."""
        images = torch.cat(self._images)
        self._images.clear()
        scores, order = similarity.scores.sort(dim=0, descending=True, stable=True)
        retrieved = []
        for text in range(scores.shape[1]):
            own = similarity.own[order[:, text], text]
            best = order[:BEST, text]
            retrieved.append(
                RetrievedImages(
                    text=self._read(similarity.texts[text]),
                    images=images[best],
                    scores=scores[:BEST, text].tolist(),
                    right=own[:BEST].tolist(),
                    rank=int(own.long().argmax()) + 1,
                )
            )
        title = f"step {step}: the images that fit each text best, of {len(scores)} held-out ones (cosine similarity)"
        write_atomically(self.folder / RETRIEVAL, retrieval_figure(title, retrieved))
