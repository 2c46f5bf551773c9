"""Scores of a generative model on held-out images: its loss, and CIDEr of its captions or accuracy of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_train.evaluation.metrics.metric_states import AnswerMetric, CaptionMetric, CaptionScore, Totals
from blip2_train.types import AnswerBatch


@dataclass(frozen=True, kw_only=True)
class GeneratedCaption:
    """A generated caption beside its references."""

    image_id: int
    caption: str
    references: tuple[str, ...]
    question: str = ""
    """That the caption begins with, if it is an answer."""


class GenerationEvaluation:
    """Collects held-out batches, then scores them; the scores do not depend on the number of processes.

    Args:
        more_scores: Scores of single captions, beside CIDEr, by name; their means are reported in percent.
    """

    def __init__(self, more_scores: Mapping[str, CaptionScore] | None = None) -> None:
        self._totals = Totals(3)
        self._captions = CaptionMetric(more_scores=more_scores)
        self.texts: CaptionMetric | AnswerMetric = self._captions
        """The generated texts; an image that comes twice counts once."""

    def add_loss(self, total: Tensor, right: Tensor, count: int) -> None:
        """Add the summed loss (nats) of `count` labelled tokens, and how many of them were predicted right."""
        self._totals.update(torch.tensor([float(total), float(right), count], dtype=torch.float64))

    def add_captions(self, image_ids: Tensor, captions: list[str], references: tuple[tuple[str, ...], ...]) -> None:
        """Add the captions generated for images `(B,)`."""
        self._captions.update(image_ids.tolist(), captions, references)

    def compute(self) -> dict[str, float]:
        """Scores over the images of all processes; every process must call it.

        Returns:
            `loss_lm` (nats per token), `lm_accuracy` (percent), `pictures` (number of images), the means of
            `more_scores` (percent), and `cider` unless there is no Java to tokenise with. (1.0 of CIDEr is 100 in the
            papers' scale; it depends on the set, see `score_captions`.)
        """
        loss, right, count = self._totals.compute().tolist()
        texts = {name: float(value) for name, value in self.texts.compute().items()}
        count = max(1.0, count)
        return {
            "loss_lm": loss / count,
            "lm_accuracy": 100 * right / count,
            "pictures": float(self.texts.samples),
            **self.named(texts),
        }

    def named(self, scores: dict[str, float]) -> dict[str, float]:
        """The scores of texts by the names under which validation reports them."""
        return scores


class AnswerEvaluation(GenerationEvaluation):
    """Collects held-out batches of questions, then scores the answers.

    It reports `vqa/accuracy`, and `vqa/accuracy <question type>` for each type, see `answer_accuracy`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texts = self._answers = AnswerMetric()

    def add_answers(self, batch: AnswerBatch, answers: Sequence[str]) -> None:
        """Add the answers generated for a batch of B questions."""
        self._answers.update(batch.question_ids, answers, batch.references, batch.question_types)

    def named(self, scores: dict[str, float]) -> dict[str, float]:
        """With `vqa/` before each name."""
        return {f"vqa/{name}": value for name, value in scores.items()}
