"""Scores of a generative model on held-out pictures: its loss, and CIDEr of the captions it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from blip2_train.distributed import gather_objects, rank
from blip2_train.evaluation.metrics.coco_caption import score_captions


@dataclass(frozen=True, kw_only=True)
class WrittenCaption:
    """A caption beside what people wrote."""

    image_id: int
    caption: str
    references: tuple[str, ...]


logger = logging.getLogger(__name__)

CaptionScore = Callable[[str, Sequence[str]], float]
"""From a caption and its references to a number."""


@dataclass
class GenerationEvaluation:
    """Collects held-out batches, then scores them; the scores do not depend on the number of processes.

    Args:
        more_scores: Scores of single captions, beside CIDEr, by name; their means are reported in percent.
    """

    more_scores: Mapping[str, CaptionScore] = field(default_factory=dict)
    written: dict[Any, WrittenCaption] = field(default_factory=dict)
    """By image id (questions by their own): a picture that comes twice counts once."""
    loss_sum: float = 0.0
    right_sum: float = 0.0
    count: int = 0

    def add_loss(self, total: Tensor, right: Tensor, count: int) -> None:
        """Add the summed loss (nats) of `count` labelled tokens, and how many of them were guessed right."""
        self.loss_sum += float(total)
        self.right_sum += float(right)
        self.count += count

    def add_captions(self, image_ids: Tensor, captions: list[str], references: tuple[tuple[str, ...], ...]) -> None:
        """Add the captions written for pictures `(B,)`."""
        for image_id, caption, others in zip(image_ids.tolist(), captions, references, strict=True):
            self.written[image_id] = WrittenCaption(image_id=image_id, caption=caption, references=others)

    def compute(self) -> dict[str, float]:
        """Scores over the pictures of all processes; every process must call it.

        Returns:
            `loss_lm` (nats per token), `lm_accuracy` (percent), `pictures`, and what `text_scores` gives.
        """
        parts = gather_objects((self.written, self.loss_sum, self.right_sum, self.count))
        written = {key: value for part in parts for key, value in part[0].items()}
        count = max(1, sum(part[3] for part in parts))
        scores = {
            "loss_lm": sum(part[1] for part in parts) / count,
            "lm_accuracy": 100 * sum(part[2] for part in parts) / count,
            "pictures": float(len(written)),
        }
        if written and rank() == 0:
            scores |= self.text_scores(written)
        shared: dict[str, float] = gather_objects(scores)[0]
        return shared

    def text_scores(self, written: Mapping[Any, WrittenCaption]) -> dict[str, float]:
        """The means of `more_scores` (percent), and `cider` unless there is no Java to tokenise with.

        (1.0 of CIDEr is 100 in the papers' scale; it depends on the set, see `score_captions`.)
        """
        result = score_captions(
            {key: value.caption for key, value in written.items()},
            {key: value.references for key, value in written.items()},
            ("cider",),
        )
        scores = {}
        for name, score in self.more_scores.items():
            values = [score(item.caption, item.references) for item in written.values()]
            scores[name] = 100 * sum(values) / len(values)
        if (cider := result.scores["cider"]) is not None:
            scores["cider"] = cider
        else:
            logger.warning("no CIDEr: %s", result.reasons["cider"])
        return scores
