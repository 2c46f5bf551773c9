"""Visual question answering under Lightning: loss and VQA accuracy on held-out questions in validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2_train.data.batches.answer_collate import AnswerCollator
from blip2_train.errors import ConfigError
from blip2_train.evaluation.held_out_texts import AnswerEvaluation, GenerationEvaluation
from blip2_train.evaluation.metrics.vqa_accuracy import normalize_answer
from blip2_train.training.generation import GenerationModule


def mark_answer(answer: str, references: Sequence[str]) -> tuple[list[tuple[str, bool | None]], list[str]]:
    """The words of an answer, all right if somebody answered that, else all wrong; no word is missing.

    Example:
        >>> mark_answer("Two dogs", ["two dogs.", "dogs"])
        ([('Two', True), ('dogs', True)], [])
    """
    right = normalize_answer(answer) in map(normalize_answer, references)
    return [(word, right) for word in answer.split()], []


class AnsweringModule(GenerationModule):
    """Trains a `GenerativeModel` to answer a question about each image (arguments as `GenerationModule`).

    Raises:
        ConfigError: if the collator makes no questions, or the Q-Former or the language model cannot read questions of
            that length.
    """

    stage = "vqa"
    collator: AnswerCollator

    def open_folder(self, folder: Path, mean: Sequence[float], std: Sequence[float]) -> None:
        """Write answers into the run folder from now on; an answer is right that people gave, too."""
        self.mark_words = self.mark_words or mark_answer
        super().open_folder(folder, mean, std)

    def empty_evaluation(self) -> GenerationEvaluation:
        """An empty collection of answers."""
        return AnswerEvaluation()

    def generate_held_out(self, batch: Any, evaluation: GenerationEvaluation) -> Sequence[str]:
        """Answer the questions of a held-out batch; each question is shown with its answer."""
        assert isinstance(evaluation, AnswerEvaluation)
        prompts = [self.collator.question_prompt(question) for question in batch.questions]
        answers = self.generate_texts(batch.pixel_values, prompts, batch.question_tokens)
        evaluation.add_answers(batch, answers)
        return [f"{question} {answer}".strip() for question, answer in zip(batch.questions, answers, strict=True)]

    def questions_of(self, batch: Any) -> Sequence[str]:
        """The questions."""
        return list(batch.questions)

    def needed_tokens(self) -> dict[str, int]:
        """Tokens that a decoder-only model has to read beside the queries, by what needs them."""
        longest = self.collator.max_text_length
        answer_tokens = max(self.collator.max_answer_length, self.generation.max_new_tokens)
        return {f"max_text_length {longest} and an answer of {answer_tokens} tokens": longest + answer_tokens}

    def _check(self) -> None:
        positions = self.model.qformer_config.max_positions
        if self.model.question_to_qformer and self.collator.max_text_length > positions:
            raise ConfigError(
                f"max_text_length {self.collator.max_text_length} is more than the {positions} positions of the "
                "Q-Former; lower it"
            )
        if self.collator.tokenizer.encoder_decoder != self.model.is_encoder_decoder:
            encoder_decoder = str(self.model.is_encoder_decoder).lower()
            raise ConfigError(
                f"collator does not fit language model {self.model.language_config.name}; pass "
                f"collator.encoder_decoder={encoder_decoder}"
            )
        super()._check()
