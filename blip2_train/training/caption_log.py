"""Shows generated captions of a few fixed held-out images: as text, as an image, as a table of W&B."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from blip2_train.evaluation.held_out_texts import GeneratedCaption

GRID, LINES = "captions.png", "captions.jsonl"


class CaptionLog:
    """Writes `captions.png` (images with the newest captions) and `captions.jsonl` (those of every validation).

    Args:
        folder: The run folder.
        mean: Per channel, that pixel values were normalised with.
        std: Per channel.
    """

    def __init__(self, folder: Path, mean: Sequence[float], std: Sequence[float]) -> None:
        self.folder = folder
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
        self._draw(step, shown, captions)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("val/pictures", list(shown), step=step, caption=[item.caption for item in captions])
                rows = [[item.image_id, item.caption, item.references[0]] for item in captions]
                logger.log_table("val/captions", columns=["image_id", "caption", "reference"], data=rows, step=step)

    def _draw(self, step: int, images: Tensor, captions: Sequence[GeneratedCaption]) -> None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        columns = min(4, len(captions))
        rows = -(-len(captions) // columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 4.4 * rows), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, image, item in zip(axes.flat, images, captions, strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy())
            caption = textwrap.fill(item.caption or "(nothing)", 34)
            reference = textwrap.fill(f"({item.references[0]})", 40)
            axis.set_title(f"{caption}", fontsize=10)
            axis.text(0.5, -0.03, reference, transform=axis.transAxes, ha="center", va="top", fontsize=7, color="grey")
        figure.suptitle(f"step {step}: generated captions (and references)", fontsize=11)
        figure.tight_layout(h_pad=3.0)
        unfinished = self.folder / f".{GRID}"
        figure.savefig(unfinished, dpi=110, format="png")
        unfinished.replace(self.folder / GRID)
        pyplot.close(figure)
