"""Accuracy of answers to questions of an unknown data set: the number of reference answers decides the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.vqa_accuracy import exact_match_accuracy, vqa_accuracy

K = TypeVar("K", int, str, int | str)


def held_out_accuracy(
    predictions: Mapping[K, str], answers: Mapping[K, Sequence[str]], question_types: Mapping[K, str]
) -> dict[str, float]:
    """`accuracy`, and `accuracy <type>` for each type of question, in percent.

    It is the agreement with people where several answered (VQAv2, OK-VQA: ten), and equality with the answer where
    there is one (GQA, Visual Genome).

    Args:
        predictions: By question.
        answers: By the same questions.
        question_types: Likewise; may be empty.

    Raises:
        ConfigError: if some questions have one answer and others several, or as `vqa_accuracy`.

    Example:
        >>> held_out_accuracy({7: "two dogs"}, {7: ["2 dogs"]}, {7: ""})
        {'accuracy': 100.0}
    """
    alone = [key for key, given in answers.items() if len(given) == 1]
    if 0 < len(alone) < len(answers):
        other = next(key for key, given in answers.items() if len(given) != 1)
        raise ConfigError(
            f"{len(alone)} of {len(answers)} questions have one answer (first: {alone[0]}), the others several (first: "
            f"{other}), which are scored by different rules; validate on questions of one kind"
        )
    measure = exact_match_accuracy if alone else vqa_accuracy
    scores = measure(predictions, answers, question_types=question_types)
    return {"accuracy": scores.overall} | {
        f"accuracy {kind}": value for kind, value in scores.per_question_type.items()
    }
