"""Scores of a model that answers questions about held-out images: its loss, and its accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from blip2_train.evaluation.held_out_captions import GenerationEvaluation
from blip2_train.evaluation.metrics.metric_states import AnswerMetric
from blip2_train.types import AnswerBatch


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
