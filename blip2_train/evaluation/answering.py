"""Scores of a model that answers questions about held-out pictures: its loss, and accuracy as people would judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blip2_train.evaluation.generation import GenerationEvaluation, WrittenCaption
from blip2_train.evaluation.metrics.held_out_answers import held_out_accuracy
from blip2_train.questions import AnswerBatch


@dataclass(frozen=True, kw_only=True)
class WrittenAnswer(WrittenCaption):
    """An answer beside what people said; the caption shows it with its question."""

    answer: str
    question_type: str


@dataclass
class AnswerEvaluation(GenerationEvaluation):
    """Collects held-out batches of questions, then scores the answers."""

    def add_answers(self, batch: AnswerBatch, answers: Sequence[str]) -> None:
        """Add the answers written for a batch of B questions."""
        for row, answer in enumerate(answers):
            self.written[batch.question_ids[row]] = WrittenAnswer(
                image_id=int(batch.image_ids[row]),
                caption=f"{batch.questions[row]} {answer}".strip(),
                references=batch.references[row],
                answer=answer,
                question_type=batch.question_types[row],
            )

    def text_scores(self, written: Mapping[Any, WrittenCaption]) -> dict[str, float]:
        """`vqa/accuracy`, and `vqa/accuracy <question type>` for each type, see `held_out_accuracy`."""
        answers = {key: item for key, item in written.items() if isinstance(item, WrittenAnswer)}
        scores = held_out_accuracy(
            {key: item.answer for key, item in answers.items()},
            {key: item.references for key, item in answers.items()},
            {key: item.question_type for key, item in answers.items()},
        )
        return {f"vqa/{name}": value for name, value in scores.items()}
