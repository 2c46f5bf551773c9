"""The three losses as sums over single numbers, written from their definitions (Li et al., 2023, section 3.2)."""

from __future__ import annotations

import torch
from plain import PlainLogits
from torch import Tensor


def loop_losses(actual: PlainLogits, image_of: list[int], smoothing: float) -> dict[str, Tensor]:
    """ITC, ITM and ITG of one global batch.

    Args:
        found: The logits.
        image_of: For each sample a number that is equal for samples that count as the same image.
        smoothing: Share of a target's mass that is spread evenly over all classes, in ITC and ITG.
    """
    itm = [-_log_probability(row, label) for row, label in zip(actual.itm, actual.itm_labels.tolist(), strict=True)]
    return {"itc": _itc(actual, image_of, smoothing), "itm": sum(itm) / len(itm), "itg": _itg(actual, smoothing)}


def _itc(actual: PlainLogits, image_of: list[int], smoothing: float) -> Tensor:
    count = len(image_of)
    total = actual.image_to_text.new_zeros(())
    for logits in (actual.image_to_text, actual.text_to_image):
        for row in range(count):
            positives = [column for column in range(count) if image_of[column] == image_of[row]]
            for column in range(count):
                expected = smoothing / count + ((1 - smoothing) / len(positives) if column in positives else 0.0)
                total = total - expected * _log_probability(logits[row], column)
    return total / (2 * count)


def _itg(actual: PlainLogits, smoothing: float) -> Tensor:
    losses = []
    for text, labels in zip(actual.itg, actual.itg_labels.tolist(), strict=True):
        for logits, label in zip(text, labels, strict=True):
            if label >= 0:
                every = logits - _log_of_sum(logits)
                losses.append(-(1 - smoothing) * every[label] - smoothing * every.mean())
    return sum(losses) / len(losses)


def _log_probability(logits: Tensor, column: int) -> Tensor:
    return logits[column] - _log_of_sum(logits)


def _log_of_sum(logits: Tensor) -> Tensor:
    largest = logits.detach().max()
    return largest + torch.log(torch.exp(logits - largest).sum())
