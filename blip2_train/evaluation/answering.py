"""Scores of a model that answers questions about held-out pictures: its loss, and accuracy as people would judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blip2_train.evaluation.generation import GenerationEvaluation, WrittenCaption
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
        """`accuracy`, and `accuracy <question type>` for each type, in percent."""
        by_type: dict[str, list[float]] = defaultdict(list)
        for item in written.values():
            assert isinstance(item, WrittenAnswer)
            by_type[item.question_type].append(answer_accuracy(item.answer, item.references))
        scores = {f"accuracy {kind}": 100 * sum(values) / len(values) for kind, values in by_type.items() if kind}
        everything = [value for values in by_type.values() for value in values]
        return {"accuracy": 100 * sum(everything) / len(everything), **scores}


def answer_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Share of agreement: for each person, a third of the other people who gave this answer, at most 1; then the mean."""
    same = [other == answer for other in answers]
    total = sum(same)
    return sum(min(1.0, (total - one) / 3) for one in same) / len(same)
