"""Collates questions about images: inputs of the Q-Former and the language model, and answers as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

from blip2_train.data.batches.generation_collate import IGNORED, stack_texts
from blip2_train.data.batches.language_tokenizer import AnsweringTokenizer
from blip2_train.data.batches.qformer_tokenizer import load_text_tokenizer
from blip2_train.data.fingerprint import Fingerprint, tokenizer_fingerprint
from blip2_train.data.text_cleaning import put_question
from blip2_train.errors import ConfigError
from blip2_train.types import AnswerBatch, Batch, GenerationBatch, QuestionSample


class AnswerCollator:
    """The question in its prompt for the language model, the question alone for the Q-Former, and the answer as labels.

    A question that is too long loses its last words: neither the end of the prompt ("Answer:") nor the end token is
    ever cut. An answer that is too long loses its last tokens before the end token.

    Args:
        tokenizer: The tokenizer of language model and Q-Former, padding on the right.
        max_text_length: Tokens of the question in its prompt, with start (and end, if an encoder reads it); also of
            the question for the Q-Former.
        max_answer_length: Tokens of the answer with the end token.
        prompt: The prompt, with `{}` for the question.

    Raises:
        ConfigError: if the prompt has no `{}`, or leaves no room for a question.
    """

    batch_type: ClassVar[type[Batch]] = AnswerBatch

    def __init__(
        self,
        tokenizer: AnsweringTokenizer,
        max_text_length: int = 64,
        max_answer_length: int = 16,
        prompt: str = "Question: {} Answer:",
    ) -> None:
        if "{}" not in prompt:
            raise ConfigError(f"prompt {prompt!r} has no {{}} for the question; write 'Question: {{}} Answer:'")
        if max_answer_length < 2:
            raise ConfigError(f"max_answer_length must be at least 2 (a token and the end), got {max_answer_length}")
        self.tokenizer = tokenizer
        self.max_text_length, self.max_answer_length, self.prompt = max_text_length, max_answer_length, prompt
        if (taken := len(tokenizer.prompt_ids(put_question(prompt, "")))) >= max_text_length:
            raise ConfigError(
                f"the prompt {prompt!r} takes {taken} of the {max_text_length} tokens of max_text_length and leaves no "
                "room for a question; shorten it, or raise max_text_length"
            )

    def fingerprint(self) -> Fingerprint:
        """Values that must be equal for a run to resume."""
        question_tokens = tokenizer_fingerprint(self.tokenizer.question_tokenizer)["tokenizer"]
        kind: Fingerprint = {
            "prompt": self.prompt,
            "max_answer_length": self.max_answer_length,
            "questions": question_tokens,
        }
        return {"max_text_length": self.max_text_length, **tokenizer_fingerprint(self.tokenizer.tokenizer), **kind}

    def question_prompt(self, question: str) -> str:
        """The prompt of a question, without the question's last words if it is too long."""
        words = question.split(" ")
        for kept in range(len(words), -1, -1):
            text = put_question(self.prompt, " ".join(words[:kept]))
            if len(self.tokenizer.prompt_ids(text)) <= self.max_text_length:
                break
        return text

    def text_lengths(self, samples: Sequence[Any]) -> list[int]:
        """Tokens of each question and its answer."""
        texts = [f"{sample.question} {sample.caption}" for sample in samples]
        return self.tokenizer.text_lengths(texts)

    def __call__(self, samples: Sequence[Any]) -> AnswerBatch:
        """Make a batch of B samples (`QuestionSample`), padded to the longest."""
        questions: Sequence[QuestionSample] = samples
        prompts = [self.question_prompt(sample.question) for sample in questions]
        if self.tokenizer.encoder_decoder:
            input_ids = [self.tokenizer.prompt_ids(prompt) for prompt in prompts]
            labels = [self.tokenizer.finished_ids(sample.caption, self.max_answer_length) for sample in questions]
        else:
            texts = [self._continued(prompt, sample.caption) for prompt, sample in zip(prompts, questions, strict=True)]
            input_ids = [ids for ids, _ in texts]
            labels = [[IGNORED] * front + ids[front:] for ids, front in texts]
        question_tokens = self.tokenizer.questions([sample.question for sample in questions], self.max_text_length)
        batch = stack_texts(self.tokenizer, questions, input_ids, labels)
        return AnswerBatch(
            **{field.name: getattr(batch, field.name) for field in fields(GenerationBatch)},
            qformer_input_ids=question_tokens.input_ids,
            qformer_attention_mask=question_tokens.attention_mask,
            questions=tuple(sample.question for sample in questions),
            question_ids=tuple(sample.question_id for sample in questions),
            question_types=tuple(sample.question_type for sample in questions),
        )

    def _continued(self, prompt: str, answer: str) -> tuple[list[int], int]:
        """Ids of prompt, answer and end token, and the length of the prompt in them."""
        room = len(self.tokenizer.prompt_ids(prompt)) + self.max_answer_length
        return self.tokenizer.training_text(prompt, answer, room)


def load_answer_collator(
    *,
    name: str,
    encoder_decoder: bool,
    tokenizer: str,
    max_text_length: int,
    max_answer_length: int,
    prompt: str,
    start_token: str | None = None,
    end_token: str | None = None,
    pad_token: str | None = None,
) -> AnswerCollator:
    """An `AnswerCollator` for language model `name` and the Q-Former's `tokenizer`; tokens as `LanguageTokenizer`'s."""
    answering = AnsweringTokenizer(
        name,
        load_text_tokenizer(tokenizer),
        padding_side="right",
        encoder_decoder=encoder_decoder,
        start_token=start_token,
        end_token=end_token,
        pad_token=pad_token,
    )
    return AnswerCollator(answering, max_text_length, max_answer_length, prompt)
