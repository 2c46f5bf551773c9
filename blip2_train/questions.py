"""The records and protocols of questions about images that the layers exchange.

Shape letters: B batch per process, T text tokens, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from blip2_train.types import GenerationBatch, GenerativeEncoder, ImageTextSample


@dataclass(slots=True, kw_only=True)
class QuestionSample(ImageTextSample):
    """One image and one question about it; the caption is one of its answers."""

    question: str
    """Cleaned question."""
    question_id: int | str
    """As in the data; unique in its source."""
    question_type: str
    """Kind of question, empty if the data does not say it."""


class TextTokens(NamedTuple):
    """Texts as the Q-Former reads them."""

    input_ids: Tensor
    """`(B, T)`, int64: `[CLS]` … `[SEP]`, then padding."""
    attention_mask: Tensor
    """`(B, T)`, bool, True = real token."""


@dataclass(slots=True, kw_only=True)
class AnswerBatch(GenerationBatch):
    """A batch of questions about images: the language model is to say an answer after the question."""

    qformer_input_ids: Tensor
    """`(B, T)`, int64: the questions as the Q-Former reads them, `[CLS]` … `[SEP]`, then padding."""
    qformer_attention_mask: Tensor
    """`(B, T)`, bool, True = real token."""
    questions: tuple[str, ...]
    """Cleaned."""
    question_ids: tuple[int | str, ...]
    question_types: tuple[str, ...]

    @property
    def question_tokens(self) -> TextTokens:
        """The questions as the Q-Former reads them."""
        return TextTokens(self.qformer_input_ids, self.qformer_attention_mask)


class AnsweringEncoder(GenerativeEncoder, Protocol):
    """What the objective of visual question answering asks of a model."""

    def predicting_states(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        question: TextTokens | None = None,
    ) -> Tensor:
        """Last states `(B, T, D)` of the language model; its queries may read each image with its question."""
        ...
