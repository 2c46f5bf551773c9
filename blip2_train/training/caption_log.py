"""Shows generated captions of a few fixed held-out images: as text, as an image, as a table of W&B."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from blip2_train.evaluation.figures.captions import ShownCaption, caption_figure
from blip2_train.evaluation.held_out_texts import GeneratedCaption
from blip2_train.system.atomic_write import write_atomically

MarkWords = Callable[[str, Sequence[str]], tuple[list[tuple[str, bool | None]], list[str]]]
"""From a generated text and its references to its words, each with whether it is right (None = nobody can tell), and to
what it should have named and did not."""
GRID, LINES = "captions.png", "captions.jsonl"


class CaptionLog:
    """Writes `captions.png` (images with the newest captions) and `captions.jsonl` (those of every validation).

    Args:
        folder: The run folder.
        mean: Per channel, that pixel values were normalised with.
        std: Per channel.
        mark: Tells right words from wrong ones, which the image shows in colours; None = nobody can.
    """

    def __init__(
        self, folder: Path, mean: Sequence[float], std: Sequence[float], mark: MarkWords | None = None
    ) -> None:
        self.folder, self._mark = folder, mark
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def write(
        self, step: int, images: Tensor | None, captions: Sequence[GeneratedCaption], loggers: Sequence[Any]
    ) -> None:
        """Write the captions of images `(N, 3, H, W)`, normalised, after `step` optimiser steps.

        Without images, in a run from stored features, only the lines are written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LINES).open("a", encoding="utf-8") as file:
            for item in captions:
                line = {
                    "step": step,
                    "image_id": item.image_id,
                    "caption": item.caption,
                    "reference": item.references[0],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if images is None:
            return
        shown = (images.float().cpu() * self.std + self.mean).clamp(0, 1)
        title = f"step {step}: generated captions, and below them a reference"
        write_atomically(self.folder / GRID, caption_figure(title, shown, list(map(self._marked, captions))))
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("val/pictures", list(shown), step=step, caption=[item.caption for item in captions])
                rows = [[item.image_id, item.caption, item.references[0]] for item in captions]
                logger.log_table("val/captions", columns=["image_id", "caption", "reference"], data=rows, step=step)

    def _marked(self, item: GeneratedCaption) -> ShownCaption:
        text = item.caption[len(item.question) :]
        mark = self._mark or (lambda text, references: ([(word, None) for word in text.split()], []))
        words, missing = mark(text, item.references)
        return ShownCaption(words=words, missing=missing, reference=item.references[0], label=item.question)
